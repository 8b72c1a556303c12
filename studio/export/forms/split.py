"""A GGUF divided into several files in llama.cpp's own form, in a process of its own.

Names are `NAME-00001-of-00003.gguf`; the first file has the metadata, each says its place (split.no, split.count) and
how many tensors there are in all (split.tensors.count). Programs are given the first one and find the others beside it.
A tensor is never divided, and none is read into memory: they are copied from the mapped file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.export.steps import Report, serve_step

_HELD = "general.architecture"  # which the writer is made with
_NO_FIELDS = re.compile(r"GGUF\.|split\.")  # what the reader calls the header's own numbers; an earlier division's


def split(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Divide a file; it stays as it is.

    Args:
        request: {"file", "stem" (of the files' names), "most" (bytes of a file, unless one tensor is larger)}.
        report: not called.

    Returns:
        {"files": their names, in order}; they lie beside the file.

    Raises:
        StudioError: it could not be divided, since it has one tensor only.
    """
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    file = Path(request["file"])
    reader = GGUFReader(file)
    target = file.with_name(f"{request['stem']}.gguf")
    held = reader.fields[_HELD].contents()
    # What stands before the tensors counts, too; only the first file has it.
    most = max(1, int(request["most"]) - int(reader.data_offset))
    writer = GGUFWriter(target, held, split_max_size=most)
    writer.data_alignment = reader.alignment
    for name, field in reader.fields.items():
        if name != _HELD and not _NO_FIELDS.match(name):
            of = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], of)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    names = [path.name for path in writer.format_shard_names(target)]
    if len(names) < 2:
        raise StudioError("it has one tensor, which is never divided", where=file.name, fix="Export it as one file")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"files": names}


if __name__ == "__main__":
    raise SystemExit(serve_step(split))
