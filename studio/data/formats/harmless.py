"""Lines over columns that only put texts together: they run here, where others need a process of their own.

Read off the syntax tree: columns by their names, texts, `if`, comparisons and filters that look at a text once. What
such a line takes grows with the row and its own length, and with nothing else. Anything else makes the answer no.
"""

from __future__ import annotations

from jinja2 import nodes

_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getitem, nodes.Filter,
    nodes.Concat, nodes.CondExpr, nodes.If, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test,
    nodes.Keyword,
)  # fmt: skip
_FILTERS = ("upper", "lower", "trim", "string", "capitalize", "title", "length", "count", "default", "d", "first")
_TESTS = ("defined", "undefined", "none", "string", "number", "mapping", "eq", "equalto", "==", "ne", "!=", "in")
_MOST_NODES = 500


def is_harmless(tree: nodes.Template) -> bool:
    """Return whether a line is known to be one of these."""
    left: list[nodes.Node] = [tree]
    for _ in range(_MOST_NODES):
        if not left:
            return True
        node = left.pop()
        if not isinstance(node, _NODES) or (isinstance(node, nodes.Name) and node.ctx != "load"):
            return False
        if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            return False
        if isinstance(node, nodes.Test) and node.name not in _TESTS:
            return False
        if isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Const):
            return False
        left += node.iter_child_nodes()
    return False


def names_in(tree: nodes.Template) -> set[str]:
    """Return the names that a line reads and does not set itself.

    Jinja's own `meta` makes code of the line for it, and works out what is constant: `9 ** 999999999` takes for ever.
    """
    names = list(tree.find_all(nodes.Name))
    own = {name.name for name in names if name.ctx != "load"} | {macro.name for macro in tree.find_all(nodes.Macro)}
    return {name.name for name in names} - own
