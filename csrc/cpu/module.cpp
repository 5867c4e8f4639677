// The Python module fused_mixup._C: importing it registers the ops' CPU implementations. A build of
// one library for both devices names it as it likes: TORCH_EXTENSION_NAME.
//
// A free-threaded Python turns its lock on for modules that do not declare that they need none.
// This one does not: the Python side of the package relies on reference counts, which tell nothing
// without the lock.
#include <Python.h>

#include "../common/binary.h"
#include "kernels.h"
#include "parallel.h"

#ifndef TORCH_EXTENSION_NAME
#define TORCH_EXTENSION_NAME _C
#endif

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
    FUSED_MIXUP_STRING(TORCH_EXTENSION_NAME),
    "CPU kernels of fused_mixup.",
    -1,
    methods,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC FUSED_MIXUP_JOIN(PyInit_, TORCH_EXTENSION_NAME)() {
  fused_mixup::watch_forks();
  return PyModule_Create(&module);
}
