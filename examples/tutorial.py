"""From a model of your own to a decision in ten steps: card, layers, profile, comparison, margin, plan, gate, report.

Run it in a folder of its own (`python tutorial.py`, some minutes), or step by step in an editor that knows `# %%`, or as
`tutorial.ipynb`, which `make_notebook.py` makes of it. The model is the bundled ResNet-20 without its card, and the images are
the bundled sample; put your own in their place.
"""

# %% 1. A model of your own: an ONNX file, as any framework exports it, with the batch norms kept.
import shutil
import subprocess
import sys
from pathlib import Path

import onnxnoise
from onnxnoise.data.resources import bundled

shutil.copy(bundled("model_cards")["resnet20-cifar10"].with_suffix(".onnx"), "mine.onnx")
DATA, IMAGES = "cifar10-sample", int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else 200


def command(text: str) -> None:
    """Run a command of onnxnoise as one would type it, and print what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "onnxnoise", *text.split()], capture_output=True, text=True, check=False
    )
    print(f"$ onnxnoise {text}\n{done.stdout or done.stderr}")


# %% 2. What would be perturbed: its noise layers. That needs no images.
for layer in onnxnoise.open_model("mine.onnx").layers[:5]:
    print(layer.index, layer.name, layer.kind, layer.parameters)

# %% 3. The card says how the model wants its images. This drafts one from the file and from what fits the images best.
command(f"cards new mine.onnx --data {DATA} --limit {IMAGES} -o mine.toml")

# %% 4. A profile: one noisy layer at a time, and all together. The run file keeps it, and the same command goes on.
spec = onnxnoise.BenchSpec("mine.onnx", data=DATA, limit=IMAGES, snrs=(20, 5), out="mine.sqlite")
result = onnxnoise.bench(spec)
print(result)
result  # a notebook shows table and curve

# %% 5. The same as tables, at any time, without the model or its images.
command("show mine.sqlite -q")

# %% 6. Is another network better? Both meet the same images and draws of noise; "tied" means that the difference may be 0.
question = onnxnoise.BenchSpec("", data=DATA, limit=IMAGES, snrs=(5,), sweeps=("all",), bn="affine")
ranking = onnxnoise.compare(["mine.onnx", "vgg16-slim-cifar10"], question)
for placing in ranking.figures:
    print(
        placing.model, f"{placing.absolute.mean:.3f}", "rank", placing.absolute.rank, "tied with", placing.absolute.tied
    )

# %% 7. The margin: the most noise at which it keeps 95 % of its clean accuracy.
asked = onnxnoise.BenchSpec("mine.onnx", data=DATA, limit=IMAGES, draws=3, sweeps=("all",), bn="affine", target=0.95)
(margin,) = onnxnoise.margin(asked).margins
print(f"from SNR {margin.level:.3g} on, 95 % interval {margin.interval}")

# %% 8. The plan: which layers to keep digital so that it bears more noise than that.
plan = onnxnoise.plan(asked, snr=max(1.0, margin.level / 2), fresh_draws=3)
print(f"{[layer.name for layer in plan.digital]} digital, {plan.share:.2%} of the parameters: {plan.verified.mean:.3f}")

# %% 9. The gate: rules that every build must meet; in a pipeline `onnxnoise gate` exits with 1 where one fails.
Path("onnxnoise.toml").write_text('[[rule]]\nname = "half at SNR 20"\nsnr = 20\nmin = 0.5\n')
verdict = onnxnoise.gate("mine.sqlite", "onnxnoise.toml")
print(verdict.verdict, [rule.message for rule in verdict.rules])

# %% 10. The report, for those who were not there: here as text; `report.html` is a page with figures, `report.tex` for the paper.
onnxnoise.report(["mine.sqlite"], "report.md")
print(Path("report.md").read_text()[:900])
