import subprocess
import sys
import time

import pytest

import convlora


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_the_package_does_not_import_torch():
    result = python("import sys, convlora; print('torch' in sys.modules, convlora.__version__)")
    assert result.stdout == f"False {convlora.__version__}\n"


@pytest.mark.parametrize("name", convlora.__all__)
def test_every_public_name_resolves(name):
    assert getattr(convlora, name) is not None
    assert name in dir(convlora)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        convlora.nothing  # noqa: B018


@pytest.mark.parametrize(
    "command", ["", "doctor", "check", "train", "resume", "predict", "evaluate", "compare", "demo"]
)
def test_help_does_not_import_torch(command):
    code = (
        "import sys\nfrom convlora.cli.main import main\n"
        f"code = main({[command, '--help'] if command else ['--help']})\n"
        "sys.exit(code if 'torch' not in sys.modules else 'torch was imported')"
    )
    begin = time.monotonic()
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: convlora")
    assert time.monotonic() - begin < 2  # 0.25 s on a machine of its own


@pytest.mark.parametrize("name", ["ConvLoraConfig", "balance_loss"])
def test_importing_any_name_of_the_adapter_registers_it_with_peft(name):
    result = python(
        f"from convlora.adapter import {name}\n"
        "from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as configs, PEFT_TYPE_TO_TUNER_MAPPING as tuners\n"
        "print(configs['CONV_LORA'].__name__, tuners['CONV_LORA'].__name__)"
    )
    assert result.stdout == "ConvLoraConfig ConvLoraModel\n", result.stderr
