// Makes the library importable as fused_mixup._C_cuda: loading it registers the ops. Limited API.
#include <Python.h>

extern "C" {

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
PyObject* PyInit__C_cuda(void) {
  static struct PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr,
  };
  return PyModule_Create(&module);
}
}
