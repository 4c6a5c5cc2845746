"""Another program's checkpoint in, one of ours out. One core call; it knows neither formats nor networks.

Reads the authors' MatConvNet .mat, the PyTorch port's .pth, and ImageNet weights (torchvision .pth or safetensors,
MatConvNet .mat), which get heads of zeros to train from.

Example: python jobs/convert_checkpoint.py hr_res101.mat hr-resnet101.safetensors --name hr-resnet101

Exit codes: 0 done, 2 refused: nothing was written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from options import job_app, refuse_unwritable, run_job
from tinyface_core.errors import OutputError
from tinyface_core.model.checkpoint import is_untrained, save_checkpoint
from tinyface_core.model.spec import TrunkName
from tinyface_core.model.third_party import FormName, convert

NAMED = 4  # tensors that were left out

app = job_app("convert_checkpoint.py", __doc__ or "")


@app.default
def convert_checkpoint(
    source: Path,
    target: Path,
    /,
    *,
    trunk: TrunkName | None = None,
    name: str | None = None,
    form: Annotated[FormName, Parameter(name="--imagenet-form")] = "torchvision",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Writes TARGET, with weights in fp32 as in SOURCE.

    Parameters
    ----------
    source
        The authors' .mat (in MATLAB's v7 form, not v7.3), the PyTorch port's .pth, or ImageNet weights.
    target
        The file to write, NAME.safetensors.
    trunk
        Needed only where the names in the file do not tell.
    name
        The model's name in settings and reports. Default: the source's name without its ending.
    form
        ImageNet weights with PyTorch names only. keras: a ResNet of MSRA's form (stride in the first 1x1, epsilon
        0.001, input 0..255 less a mean), as the Keras v1 weights are; torchvision: everything else.
    overwrite
        Replace the file that is there.
    """
    if target.suffix != ".safetensors":
        raise OutputError(f"{target}: the name of a checkpoint ends in .safetensors.")
    refuse_unwritable("TARGET", target, overwrite=overwrite)
    network, spec = convert(source, trunk=trunk, name=name, form=form)
    try:
        save_checkpoint(target, network, spec, half=False)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}).") from error
    names = spec.provenance["left_out"]
    left_out = ", ".join(names[:NAMED]) or "nothing"
    left_out += f", ... ({len(names)} tensors)" if len(names) > NAMED else ""
    print(f"{target}: {spec.name}, {spec.network.trunk.name}, from {spec.provenance['format']}. Left out: {left_out}.")
    if is_untrained(network):
        print("It finds no faces before it is trained: jobs/train.py --start-from.")


if __name__ == "__main__":
    sys.exit(run_job(app))
