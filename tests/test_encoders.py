"""The names that are read from source text are the names that the libraries themselves give."""

import subprocess
import sys
from unittest.mock import patch

import pytest
import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.encoders import is_equivalent_to_timm_universal

from segfocal.config import encoders
from segfocal.config.encoders import ARCHITECTURES, check_encoder, encoder_names, timm_names


def test_architectures_are_those_of_smp():
    assert set(ARCHITECTURES) == set(smp.MODEL_ARCHITECTURES_MAPPING)


def test_encoders_are_those_of_smp():
    assert encoder_names() == set(smp.encoders.get_encoder_names())


def test_models_are_those_of_timm():
    assert timm_names() == set(timm.list_models())


@pytest.mark.parametrize(
    "name", ["resnet18", "mit_b0", "efficientnet-b0", "timm-skresnet18", "tu-resnet18", "tu-resnet18.a1_in1k", "tu-tf_efficientnet_lite0"]
)
def test_accepts(name):
    assert check_encoder(name) is None


def test_accepts_the_legacy_names_that_smp_turns_into_timms():
    legacy = [name for name in timm_names() if is_equivalent_to_timm_universal(f"timm-{name}") and "mobilenetv3" not in name]
    assert len(legacy) > 50
    assert [name for name in legacy if check_encoder(f"timm-{name}") is not None] == []
    assert check_encoder("timm-mobilenetv3_large_100") is None
    smp.encoders.get_encoder("timm-mobilenetv3_small_075", weights=None)  # SMP looks for the model under the name with tf_, as we do
    assert check_encoder("timm-mobilenetv3_small_050") is not None  # timm has mobilenetv3_small_050, but no tf_mobilenetv3_small_050


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet43", "did you mean resnet34 or"),
        ("Resnet34", "did you mean resnet34 or"),
        ("efficientnet_b0", "did you mean efficientnet-b0 or"),
        ("tu-resnet_18", "did you mean tu-resnet18"),
        ("tu-resnet81.a1_in1k", "did you mean tu-resnet"),
        ("timm-regnetx_003", "did you mean tu-regnetx_0"),
        ("resnet18.a1_in1k", "did you mean resnet18 or"),
        ("timm-resnet18", "a model of timm is called tu-<name>"),
        ("tu-", "no encoder is named 'tu-'"),
        ("", "no encoder is named ''"),
    ],
)
def test_refuses_in_one_line_that_names_the_nearest(name, nearest):
    problem = check_encoder(name)
    assert problem is not None
    assert f"'{name}'" in problem
    assert nearest in problem
    assert "\n" not in problem


def test_timm_is_read_for_its_own_names_only():
    with patch.object(encoders, "timm_names", side_effect=AssertionError("timm was read")):
        assert check_encoder("resnet18") is None
        assert check_encoder("resnet43") is not None
        with pytest.raises(AssertionError, match="timm was read"):
            check_encoder("tu-resnet18")


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(ModuleNotFoundError, match="no_such_package is not installed"):
        encoders._sources("no_such_package", "models")


def test_imports_nothing_heavy_and_is_quick():
    code = """
import sys, time
import segfocal.nearest
start = time.process_time()
from segfocal.config.encoders import check_encoder
assert check_encoder("resnet34") is None
spent = time.process_time() - start
assert check_encoder("tu-resnet18") is None
heavy = {"torch", "timm", "segmentation_models_pytorch", "numpy", "cv2"} & set(sys.modules)
assert not heavy, heavy
print(spent)
"""
    runs = [float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) for _ in range(3)]
    assert min(runs) < 0.06
