"""The Python interface: `import pimloom as pl`, and the example script."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import pimloom as pl

ROOT = Path(__file__).resolve().parent.parent
TINY = str(Path(__file__).parent / "data" / "functional" / "gpt2-tiny")


@pytest.fixture(scope="module")
def result() -> pl.Result:
    return pl.simulate(TINY, "pim-gpt", prompt=2, generate=3)


def test_import_is_light() -> None:
    code = "import sys; before = set(sys.modules); import pimloom; print(sorted(sys.modules.keys() - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ast.literal_eval(done.stdout)}
    assert loaded.isdisjoint({"numpy", "numba", "pydantic", "yaml", "pandas", "matplotlib", "typer", "rich"})


def test_public_names() -> None:
    assert pl.__version__
    assert set(pl.__all__) <= set(dir(pl))
    for name in pl.__all__:
        assert getattr(pl, name) is not None
    assert pl.version()["pimloom"] == pl.__version__
    with pytest.raises(AttributeError, match="has no attribute 'simulat'"):
        _ = pl.simulat  # type: ignore[attr-defined]


def test_function_stays_when_its_module_is_imported() -> None:
    code = "import pimloom.proof, pimloom as pl; assert callable(pl.validate)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_simulate(result: pl.Result) -> None:
    assert len(result.time_per_token_ns) == 4
    assert result.total_time_ns == pytest.approx(sum(result.time_per_token_ns))
    assert result.ttft_ns == pytest.approx(sum(result.time_per_token_ns[:2]))
    assert "gpt2-tiny on pim-gpt" in result._repr_html_()
    ops = result.to_pandas()
    assert ops.end_ns.max() == result.total_time_ns
    assert result.plot.latency().get_ylabel().startswith("time per token")


def test_bad_input_is_one_exception(tmp_path: Path) -> None:
    with pytest.raises(pl.InputError, match="did you mean 'gpt3-xl'"):
        pl.simulate("gpt3-xxl", "pim-gpt")
    with pytest.raises(pl.InputError, match="did you mean 'pim-gpt'"):
        pl.load_arch("pim-gtp")
    with pytest.raises(pl.InputError, match="holds no result"):
        pl.load(tmp_path)


def test_validate() -> None:
    assert pl.validate(TINY, "pim-gpt").passed


def test_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("first_light", ROOT / "examples" / "first_light.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(tmp_path / "out", (TINY, TINY), generate=2)
    assert "1.00 times the parameters take 1.00 times as long" in capsys.readouterr().out
    assert (tmp_path / "out" / "latency_share.png").stat().st_size > 1000
