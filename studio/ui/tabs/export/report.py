"""The exports of a run, newest first: progress while one is made, then its report and its files.

The value names the jobs only; everything else comes to the browser from our own routes (assets/export/export.js), and
files are links to a route that sends them from where they lie.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import gradio as gr

from studio.config.jobs import PLACES, SERVERS
from studio.jobs import JobFolder
from studio.ui.components.selected import exports_of, has_model, is_elsewhere, jobs_of, when
from studio.ui.server.services import Services
from studio.ui.server.theme import script_tags
from studio.ui.tabs.export.delivery import WHATS

# What is made, by destination.
TITLES = {
    "gguf": "GGUF", "ollama": "Ollama model", "llama-server": "llama.cpp server", "lmstudio": "LM Studio",
    "gguf-lora": "GGUF adapter", "merged": "Merged checkpoint", "adapter": "Adapter", "vllm": "vLLM",
    "sglang": "SGLang", "tgi": "TGI",
    "hub": "Hugging Face Hub", "folder": "Folder or zip",
}  # fmt: skip
SCRIPTS = ("folder", "modelfile", "matrix", "serving", "delivered", "differences", "trying", "export")
TEMPLATE = '<div class="studio export-view"></div>'
# The words in quotes are the component's own events (see __getattr__ of gr.HTML); "chat" carries a job and a file.
ON_LOAD = "window.studioExport.mount(element, props, watch, (name, data) => trigger(name, data)); // 'refresh' 'chat'"


def export_report(value: dict[str, Any]) -> gr.HTML:
    """Make the component; its value is what `report_value` returns."""
    return gr.HTML(
        value=value,
        html_template=TEMPLATE,
        head=script_tags(
            "core/follow.js",
            *(f"export/{name}.js" for name in SCRIPTS),
        ),
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="export-report",
    )


def report_value(services: Services, run: JobFolder | None) -> dict[str, Any]:
    """Which exports the run has, newest first; `waiting` names the run while it is still training."""
    if run is None:
        return {"run": "", "id": "", "waiting": "", "exports": []}
    exports = [_shown(job, run.name) for job in jobs_of(services, run, "export")]
    return {"run": run.name, "id": run.id, "waiting": "" if run.state().final else run.id, "exports": exports}


def model_value(services: Services, model: str, job_id: str) -> dict[str, Any]:
    """As `report_value`, of a model that no run made.

    Args:
        services: of the page.
        model: its folder or name, as an export keeps it.
        job_id: of the selected job. What was exported is offered to the Chat tab, which talks to what is made of the
            selected job, where that is one of these exports.
    """
    jobs, name = exports_of(services, model), PurePath(model).name
    exports = [_shown(job, name) for job in jobs]
    silent = all(job.id != job_id for job in jobs)
    return {"run": name, "id": "", "waiting": "", "exports": exports, "silent": silent}


def _shown(job: JobFolder, name: str) -> dict[str, str]:
    return {"id": job.id, "title": f"{title_of(job)} of {name}", "what": types_of(job), "when": when(job)}


def title_of(job: JobFolder) -> str:
    """What an export makes: 'GGUF'."""
    return TITLES.get(str(job.request.config.get("to") or "gguf"), "Export")


def types_of(job: JobFolder) -> str:
    """An export in one line: its types, 'Q4_K_M, F16', its precision, 'merged, bfloat16', or where it is put."""
    config = job.request.config
    if (to := config.get("to")) in PLACES:
        place = str(config.get("repo") if to == "hub" else PurePath(str(config.get("path"))).name)
        return f"{WHATS.get(str(config.get('what')), 'export')} in {place}"
    if to in ("merged", "adapter", *SERVERS):
        dtype = str(config.get("dtype") or "auto")
        what = str(config.get("serve") if to in SERVERS else to)
        return what if dtype == "auto" or what == "adapter" else f"{what}, {dtype}"
    if to == "gguf-lora":
        return "GGUF adapter"
    types = config.get("types")
    return ", ".join(str(kind).upper() for kind in types) if isinstance(types, list) else ""


def empty_sentence(run: JobFolder | None) -> str:
    """What to do when nothing can be exported; "" when something can."""
    if run is None:
        return (
            "Pick a finished run in the list at the left, or a model above: it becomes a file for llama.cpp, Ollama "
            "and LM Studio, or a checkpoint for vLLM."
        )
    if is_elsewhere(run):
        return f"The model of '{run.name}' is at OpenAI and cannot be fetched, so there is nothing to export."
    if has_model(run):
        return ""
    name = run.name
    if run.scores:
        return f"'{name}' is a reward model: it scores answers and writes none, so there is nothing to export."
    if not run.state().final:
        return f"'{name}' can be exported when it is done."
    return f"'{name}' has no model, so there is nothing to export."
