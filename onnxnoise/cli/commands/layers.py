"""`onnxnoise layers`: the layers that noise would perturb."""

from __future__ import annotations

from onnxnoise.cli.options import Printer
from onnxnoise.flags import Given, from_flags


def layers(given: Given, printer: Printer) -> None:
    """Show a model's noise layers: what would be perturbed, in canonical order. Needs no card and no images."""
    from onnxnoise.cli.output import profile
    from onnxnoise.results.as_json import layers_json
    from onnxnoise.run import loading
    from onnxnoise.run.unattached import without_noise

    spec = from_flags(**given)
    opened = loading.open_model(
        spec.model, bn=spec.bn, analog=spec.setting.analog, layers=spec.layers, output=spec.output
    )
    network = opened.network
    infos = [loading.layer_info(layer) for layer in opened.layers]
    without = without_noise(network)
    about = {"name": network.name, "sha256": network.sha256}
    printer.result(
        lambda: layers_json(about, spec.setting, infos, network.notices, without),
        lambda shown: profile.layers_table(shown, network.name, infos, spec.setting, without),
        network.notices,
    )
