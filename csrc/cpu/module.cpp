// The Python module fused_mixup._C: importing it registers the ops' CPU implementations.
//
// A free-threaded Python turns its lock on for modules that do not declare that they need none.
// This one does not: the Python side of the package relies on reference counts, which tell nothing
// without the lock.
#include <Python.h>

#include "kernels.h"
#include "parallel.h"

namespace {

PyObject* cpu_capability(PyObject*, PyObject*) {
  return PyUnicode_FromString(fused_mixup::kernels().name);
}

PyMethodDef methods[] = {
    {"cpu_capability", cpu_capability, METH_NOARGS,
     "The instruction set of the kernels in use: baseline, avx2 or avx512."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    "_C",
    "CPU kernels of fused_mixup.",
    -1,
    methods,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__C() {
  fused_mixup::watch_forks();
  return PyModule_Create(&module);
}
