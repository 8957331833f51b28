"""Packaging lives in setup.cfg; here is what it cannot say: the one module in C.

It may be missing where there is no compiler: forests are then scored by ONNX Runtime.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "fin_pyfunc.model.backends._forest",
            ["fin_pyfunc/model/backends/_forest.c"],
            extra_compile_args=["-O2"],
            py_limited_api=True,
            optional=True,
        )
    ],
    # one build for every Python from 3.11 on
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
