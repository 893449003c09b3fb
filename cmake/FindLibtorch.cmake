# libtorch out of a PyTorch wheel, without a CUDA toolkit: TorchConfig.cmake of a CUDA wheel refuses to be found
# where no toolkit is installed, though nothing here compiles CUDA code.
#
#   TORCH_DIR     the folder that holds include/ and lib/ (default: the private virtual environment)
#   Libtorch::torch   imported target: headers, libraries, run path
if(NOT TORCH_DIR)
  file(GLOB _candidates "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  list(GET _candidates 0 TORCH_DIR)
endif()
find_path(Libtorch_INCLUDE_DIR torch/csrc/api/include/torch/torch.h HINTS "${TORCH_DIR}/include" NO_DEFAULT_PATH)
find_library(Libtorch_LIBRARY torch_cpu HINTS "${TORCH_DIR}/lib" NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Libtorch
  REQUIRED_VARS Libtorch_INCLUDE_DIR Libtorch_LIBRARY
  REASON_FAILURE_MESSAGE "no libtorch in TORCH_DIR='${TORCH_DIR}': run scripts/setup.sh, or set TORCH_DIR to the folder 'torch' of a PyTorch installation")

add_library(Libtorch::torch INTERFACE IMPORTED)
target_include_directories(Libtorch::torch SYSTEM INTERFACE
  "${Libtorch_INCLUDE_DIR}" "${Libtorch_INCLUDE_DIR}/torch/csrc/api/include")
get_filename_component(_lib "${Libtorch_LIBRARY}" DIRECTORY)
set(Libtorch_LIB_DIR "${_lib}")
set(_libraries "${_lib}/libtorch.so" "${_lib}/libtorch_cpu.so" "${_lib}/libc10.so")
if(EXISTS "${_lib}/libtorch_cuda.so")
  # Nothing names a symbol of the CUDA half, so an --as-needed linker would drop it and the device with it.
  # NVIDIA's own libraries are found by the wheel's run path when the program starts, but not by the linker.
  list(APPEND _libraries "-Wl,--no-as-needed" "${_lib}/libtorch_cuda.so" "${_lib}/libc10_cuda.so" "-Wl,--as-needed" "-Wl,--allow-shlib-undefined")
  set(Libtorch_HAS_CUDA ON)
endif()
# The one OpenMP runtime of the program is the wheel's: a second one would double the threads. So: compile with
# -fopenmp, link the wheel's library by path, never -fopenmp or -lgomp at link time.
file(GLOB _gomp "${_lib}/libgomp*.so*" "${_lib}/../../torch.libs/libgomp*.so*")
if(_gomp)
  list(GET _gomp 0 _gomp)
  list(APPEND _libraries "${_gomp}")
else()
  list(APPEND _libraries gomp)
endif()
target_link_libraries(Libtorch::torch INTERFACE ${_libraries})
target_compile_options(Libtorch::torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_compile_definitions(Libtorch::torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
set(_version_header "${Libtorch_INCLUDE_DIR}/torch/headeronly/version.h")
if(NOT EXISTS "${_version_header}")  # older versions
  set(_version_header "${Libtorch_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h")
endif()
file(STRINGS "${_version_header}" _version REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" _version "${_version}")
list(JOIN _version "." Libtorch_VERSION)
