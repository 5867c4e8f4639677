// Makes the library importable as fused_mixup._C_cuda: loading it registers the ops. Limited API.
#include <Python.h>

#include "experimental.h"

namespace {

PyObject* set_experimental(PyObject*, PyObject* on) {
  const int truth = PyObject_IsTrue(on);
  if (truth < 0) return nullptr;
  return PyBool_FromLong(fused_mixup::experimental_switch().exchange(truth != 0));
}

PyMethodDef methods[] = {
    {"set_experimental", set_experimental, METH_O,
     "Turns experimental kernels on or off; returns what was set before."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

extern "C" {

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
PyObject* PyInit__C_cuda(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr,
  };
  return PyModule_Create(&module);
}
}
