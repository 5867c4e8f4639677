// The interface between the machine (machine.cpp) and what launches ask of the device (device.cpp).
#pragma once

namespace host_cuda {
namespace device {

void begin_launch();
void launch_failed();

}  // namespace device
}  // namespace host_cuda
