"""Packaging lives in setup.cfg; here is what it cannot say: the modules in C.

They may be missing where there is no compiler: trees are then walked in NumPy, and lines of the record and of the log
made in Python.
"""

from setuptools import Extension, setup

#: Each by the folder it lies in.
MODULES = {
    "_trees": "fin_pyfunc/model/backends",
    "_lines": "fin_pyfunc/serving",
}

setup(
    ext_modules=[
        Extension(
            f"{folder.replace('/', '.')}.{name}",
            [f"{folder}/{name}.c"],
            # no product and sum at once: they are rounded one after the other, as the libraries' own are
            extra_compile_args=["-O2", "-ffp-contract=off"],
            libraries=["m"],
            py_limited_api=True,
            optional=True,
        )
        for name, folder in MODULES.items()
    ],
    # one build for every Python from 3.11 on
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
