"""Chat templates that write what messages say and never look at it.

Of such a template the text around the contents is the same for all conversations with the same roles, so a row need
not be rendered to be known. It is read off the template's syntax tree: every use of a message is its role, or its
content on its way into the output, as it is or trimmed. Anything else (a test of a content, a content in a variable, a
message handed to a macro) makes the answer no, also where it would do no harm.
"""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import Environment, TemplateSyntaxError, nodes

# What may stand between a content and the output; `string` changes no text.
_CARRIERS = (nodes.Add, nodes.Concat, nodes.Output)
_FILTERS = ("trim", "string")
# What could keep a written content in a variable.
_CAPTURES = (
    nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Include, nodes.Import, nodes.FromImport,
    nodes.Extends,
)  # fmt: skip
# Questions about a content whose answer is the same for every text.
_TYPE_TESTS = ("defined", "string", "none", "undefined", "mapping")


def only_writes_contents(template: str) -> bool:
    """Return whether the template is known to be one of these."""
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateSyntaxError:
        return False
    if any(map(_may_hide, _all(tree))):
        return False
    parents = {child: node for node in _all(tree) for child in node.iter_child_nodes()}
    lists, messages = {"messages"}, _loop_names(tree)
    if lists & messages or any(_is_bound(node, lists | messages, parents) for node in tree.find_all(nodes.Name)):
        return False
    return all(
        _is_harmless(node, lists, parents)
        for node in tree.find_all(nodes.Name)
        if node.ctx == "load" and node.name in lists | messages
    )


def _all(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _all(child)


def _may_hide(node: nodes.Node) -> bool:
    """Whether a content could reach a test by way of this, or the text could differ from one call to the next."""
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        name = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        return name in ("previtem", "nextitem")
    if isinstance(node, nodes.Call):
        return isinstance(node.node, nodes.Name) and node.node.name not in ("raise_exception", "namespace")
    if isinstance(node, nodes.Filter):
        return bool(node.name == "random")
    return isinstance(node, _CAPTURES)


def _loop_names(tree: nodes.Template) -> set[str]:
    """Names of the messages in loops over all of them, or over all but the first."""
    loops = (loop for loop in tree.find_all(nodes.For) if _is_plain(loop))
    return {loop.target.name for loop in loops if isinstance(loop.target, nodes.Name)}


def _is_plain(loop: nodes.For) -> bool:
    """Whether a loop goes over messages by a name of which every use is looked at."""
    return isinstance(loop.target, nodes.Name) and _is_list(loop.iter) and not loop.test and not loop.recursive


def _is_list(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return isinstance(node.node, nodes.Name) and node.node.name == "messages" and _is_constant(node.arg)
    return isinstance(node, nodes.Name) and node.name == "messages"


def _is_constant(node: nodes.Node) -> bool:
    return not any(isinstance(one, nodes.Name) for one in _all(node))


def _is_bound(name: nodes.Name, known: set[str], parents: dict[nodes.Node, nodes.Node]) -> bool:
    """Whether one of the names is given another meaning than that of a loop over messages."""
    if name.ctx == "load" or name.name not in known:
        return False
    loop = parents[name]
    return not (isinstance(loop, nodes.For) and loop.target is name and _is_plain(loop))


def _is_harmless(name: nodes.Name, lists: set[str], parents: dict[nodes.Node, nodes.Node]) -> bool:
    node: nodes.Node = name
    above = parents[node]
    if name.name in lists:
        if isinstance(above, nodes.Getitem) and above.node is node and isinstance(above.arg, nodes.Slice):
            node, above = above, parents[above]
        if isinstance(above, nodes.For) and above.iter is node:
            return _is_plain(above)
        if isinstance(above, nodes.Filter) and above.name in ("length", "count"):
            return True
        # One message by its place.
        if not (isinstance(above, nodes.Getitem) and above.node is node and _is_constant(above.arg)):
            return False
        node, above = above, parents[above]
    key = _key_of(node, above)
    return key is not None and (key != "content" or _is_written(above, parents))


def _key_of(node: nodes.Node, above: nodes.Node) -> str | None:
    """The key that is asked of a message; None for any other use."""
    if isinstance(above, nodes.Getattr) and above.node is node:
        return str(above.attr)
    if isinstance(above, nodes.Getitem) and above.node is node and isinstance(above.arg, nodes.Const):
        return above.arg.value if isinstance(above.arg.value, str) else None
    return None


def _is_written(node: nodes.Node, parents: dict[nodes.Node, nodes.Node]) -> bool:
    above = parents[node]
    if isinstance(above, nodes.Test):
        return above.name in _TYPE_TESTS
    while not isinstance(above, nodes.Output):
        carries = isinstance(above, _CARRIERS) or (
            isinstance(above, nodes.Filter) and above.name in _FILTERS and above.node is node and not above.args
        )
        if not carries:
            return False
        node, above = above, parents[above]
    return True
