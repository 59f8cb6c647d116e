"""libgpumgr as a program finds it: installed, found with pkg-config, linked shared and static, from C and from C++."""

import os
import shutil
import signal
import subprocess

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SOURCE_ROOT, eventually, text_of

EXAMPLES = SOURCE_ROOT / "examples/c"
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
# Where the examples' feature tests and the header are what a plain compiler gives.
C99 = ["-std=c99", *STRICT]
CXX = ["-x", "c++", "-std=c++11", *STRICT]


def compiler(*names):
    found = next((name for name in names if shutil.which(name)), None)
    assert found, f"none of {names} is installed"
    return found


def call(*command, **keys):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120 * lib.SLOWNESS, check=False, **keys)
    assert result.returncode == 0, text_of(result)
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder in which `make install` has installed everything, as DESTDIR."""
    destination = tmp_path_factory.mktemp("installed")
    call("meson", "install", "-C", lib.BUILD_DIR, "--no-rebuild", "--quiet", env={**os.environ, "DESTDIR": str(destination)})
    return destination


@pytest.fixture(scope="module")
def pkg_config(installed):
    (folder,) = {path.parent for path in installed.rglob("libgpumgr.pc")}
    env = {**os.environ, "PKG_CONFIG_LIBDIR": f"{folder}:{system_path()}", "PKG_CONFIG_SYSROOT_DIR": str(installed)}

    def ask(*arguments):
        return call("pkg-config", *arguments, "libgpumgr", env=env).split()

    return ask


def system_path():
    return call("pkg-config", "--variable", "pc_path", "pkg-config").strip()


@pytest.fixture(scope="module")
def libraries(installed):
    (shared,) = [path for path in installed.rglob("libgpumgr.so.0") if path.is_symlink()]
    return shared.parent


@pytest.mark.newcomer
def test_what_is_installed(installed, libraries, pkg_config):
    for name in ("libgpumgr.so", "libgpumgr.so.0", "libgpumgr.a", "pkgconfig/libgpumgr.pc"):
        assert (libraries / name).exists(), name
    assert (libraries / "libgpumgr.so").is_symlink()
    assert len(list(installed.rglob("gpumgr.h"))) == 1
    (version,) = pkg_config("--modversion")
    assert (libraries / f"libgpumgr.so.{version}").is_file()
    # Neither curl nor jansson is a matter of the program's.
    assert not {"-lcurl", "-ljansson"} & set(pkg_config("--libs"))
    assert {"-lcurl", "-ljansson"} <= set(pkg_config("--libs", "--static"))
    for page in ("man1/gpumgr.1", "man1/gpumgr-run.1", "man3/libgpumgr.3"):
        if shutil.which("scdoc"):
            assert list(installed.rglob(page)), page


@pytest.mark.newcomer
def test_the_header_stands_by_itself(tmp_path, pkg_config):
    for name, command in (("a.c", [compiler("cc", "gcc"), "-std=c99"]), ("a.cc", [compiler("c++", "g++", "clang++"), "-std=c++98"])):
        source = tmp_path / name
        source.write_text("#include <gpumgr.h>\nint main() { struct gpumgr_terms terms = GPUMGR_TERMS; return terms.detached; }\n")
        strict = [*STRICT, "-Wno-long-long"]
        call(*command, *strict, *pkg_config("--cflags"), "-fsyntax-only", source)


@pytest.mark.newcomer
@pytest.mark.parametrize("link", ["shared", "static"])
@pytest.mark.parametrize("language", ["c", "c++"])
def test_a_program(tmp_path, pipeline, pkg_config, libraries, language, link):
    """The example of docs/c-library.md, against a real daemon."""
    program = tmp_path / "lease"
    command = [compiler("cc", "gcc"), *C99] if language == "c" else [compiler("c++", "g++", "clang++"), *CXX]
    flags = [f"-L{libraries}", "-lgpumgr"]
    env = pipeline.env(GPUMGR_SOCKET=str(pipeline.socket), LD_LIBRARY_PATH=str(libraries))
    if link == "static":
        rest = [flag for flag in pkg_config("--libs", "--static") if flag in ("-lcurl", "-ljansson", "-pthread")]
        flags = [libraries / "libgpumgr.a", "-lcurl", "-ljansson", *rest]
        del env["LD_LIBRARY_PATH"]
    call(*command, *pkg_config("--cflags"), "-o", program, EXAMPLES / "lease.c", "-x", "none", *flags)
    assert ("libgpumgr.so.0" in call("ldd", program, env=env)) == (link == "shared")
    result = subprocess.run([program, "vidi", "2"], env=env, capture_output=True, text=True, timeout=30 * lib.SLOWNESS, check=False)
    assert result.returncode == 0, text_of(result)
    assert "step 2, fence" in result.stdout and "vidi is stopped" in result.stdout
    assert pipeline.get("/gpu/leases").ok()["leases"] == []
    result = subprocess.run([program, "nope"], env=env, capture_output=True, text=True, timeout=30 * lib.SLOWNESS, check=False)
    assert result.returncode == 1 and "nope" in result.stderr


@pytest.mark.newcomer
def test_a_program_with_a_loop_of_its_own(tmp_path, pipeline, pkg_config, libraries):
    program = tmp_path / "loop"
    call(compiler("cc", "gcc"), "-std=gnu99", *STRICT, *pkg_config("--cflags"), "-o", program, EXAMPLES / "loop.c", f"-L{libraries}", "-lgpumgr")
    env = pipeline.env(GPUMGR_SOCKET=str(pipeline.socket), LD_LIBRARY_PATH=str(libraries))
    result = subprocess.run([program, "2GiB", "2"], env=env, capture_output=True, text=True, timeout=30 * lib.SLOWNESS, check=False)
    assert result.returncode == 0 and result.stdout.count("works") == 2, text_of(result)
    # Twice the same room does not fit: the second waits, goes on with its other work, and takes over.
    first = subprocess.Popen([program, "20GiB", "1000"], env=env, stdout=subprocess.PIPE, text=True)
    pipeline.extra_processes.append(first)
    eventually(lambda: pipeline.get("/gpu/leases").ok()["leases"], "the first holds it")
    second = subprocess.Popen([program, "20GiB", "1"], env=env, stdout=subprocess.PIPE, text=True)
    pipeline.extra_processes.append(second)
    eventually(lambda: pipeline.status()["queue"], "the second waits")
    first.send_signal(signal.SIGKILL)
    out, _ = second.communicate(timeout=30 * lib.SLOWNESS)
    assert second.returncode == 0 and "waits for" in out and "granted" in out and "works" in out
    first.communicate(timeout=10 * lib.SLOWNESS)


@pytest.mark.newcomer
def test_the_examples_makefile(tmp_path, installed, libraries):
    for path in EXAMPLES.iterdir():
        shutil.copy(path, tmp_path)
    env = {
        **os.environ,
        "PKG_CONFIG_LIBDIR": f"{libraries}/pkgconfig:{system_path()}",
        "PKG_CONFIG_SYSROOT_DIR": str(installed),
    }
    call("make", "-C", tmp_path, env=env)
    assert (tmp_path / "lease").exists() and (tmp_path / "loop").exists()


@pytest.mark.newcomer
def test_the_documentation_shows_the_example():
    assert "```c\n" + (EXAMPLES / "lease.c").read_text() + "```" in (SOURCE_ROOT / "docs/c-library.md").read_text()
