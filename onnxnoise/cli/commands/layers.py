"""`onnxnoise layers`: what would be perturbed."""

from __future__ import annotations

from onnxnoise.cli.options import (
    BnOption,
    JsonOption,
    LayersOption,
    ModelArgument,
    OutputOption,
    QuietOption,
    ScopeOption,
    check_target,
    write,
)


def layers(
    model: ModelArgument,
    bn: BnOption = None,
    sigma_scope: ScopeOption = None,
    pattern: LayersOption = None,
    json_file: JsonOption = None,
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Show a model's noise layers: what would be perturbed, in canonical order. Needs no card and no images."""
    from onnxnoise.cli.output import profile, terminal
    from onnxnoise.results.as_json import layers_json
    from onnxnoise.run import loading as subject
    from onnxnoise.spec import from_flags

    spec = from_flags(model, layers=pattern, bn=bn, sigma_scope=sigma_scope, output=output)
    check_target(json_file)
    opened = subject.open_model(model, bn=spec.bn, layers=spec.layers, output=spec.output)
    infos = [subject.layer_info(layer) for layer in opened.layers]
    shown, aside = terminal.consoles(quiet=quiet)
    if json_file is not None:
        about = {"name": opened.network.name, "sha256": opened.network.sha256}
        write(json_file, layers_json(about, spec.setting, infos, opened.network.notices))
    if json_file != "-":
        profile.layers_table(shown, opened.network.name, infos, spec.setting)
    terminal.warnings(aside, opened.network.notices)
