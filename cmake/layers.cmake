# One target per folder of quiver/, in the order of the layers. A folder links exactly the folders it may include
# (docs/architecture.md), so the linker knows the table; scripts/check_layering.py checks the includes.

set(QUIVER_WARNINGS -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
    -Wno-missing-field-initializers -Werror)  # options are set by name, the rest defaults

add_library(quiver_torch_pch OBJECT "${CMAKE_SOURCE_DIR}/cmake/torch_pch.cpp")
target_link_libraries(quiver_torch_pch PRIVATE Libtorch::torch)
target_compile_options(quiver_torch_pch PRIVATE ${QUIVER_WARNINGS})
target_include_directories(quiver_torch_pch PRIVATE "${CMAKE_SOURCE_DIR}")
target_precompile_headers(quiver_torch_pch PRIVATE <torch/utils.h> <nlohmann/json.hpp>)

# Shares one precompiled header, and compiles the target's sources together (docs/testing.md).
function(quiver_share_headers target)
  target_precompile_headers(${target} REUSE_FROM quiver_torch_pch)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${QUIVER_UNITY})
endfunction()

# quiver_layer(NAME [TORCH] [COLD] [FOLDERS ...] [LIBRARIES ...]): every .cpp of quiver/NAME, and a test program of every
# _test.cpp there. COLD: no loop of its own that matters, so that less optimisation saves a fifth of the time to compile.
function(quiver_layer name)
  cmake_parse_arguments(ARG "TORCH;COLD" "" "FOLDERS;LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/quiver/${name}/*.cpp")
  list(FILTER sources EXCLUDE REGEX "_isa\\.cpp$")
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  if(NOT sources)
    set(sources "${CMAKE_SOURCE_DIR}/cmake/empty.cpp")
  endif()
  list(TRANSFORM ARG_FOLDERS PREPEND quiver_)
  add_library(quiver_${name} STATIC ${sources})
  target_include_directories(quiver_${name} PUBLIC "${CMAKE_SOURCE_DIR}")
  target_compile_options(quiver_${name} PRIVATE ${QUIVER_WARNINGS} $<$<BOOL:${ARG_COLD}>:-O1>)
  target_link_libraries(quiver_${name} PUBLIC ${ARG_FOLDERS} ${ARG_LIBRARIES})
  if(ARG_TORCH)
    target_link_libraries(quiver_${name} PUBLIC Libtorch::torch)
    quiver_share_headers(quiver_${name})
  endif()
  if(QUIVER_TESTS AND tests)
    set(torch_flag)
    if(ARG_TORCH)
      set(torch_flag TORCH)
    endif()
    quiver_test(quiver_${name}_test ${torch_flag} SOURCES ${tests} LIBRARIES quiver_${name} quiver_io)  # tests may read files
  endif()
endfunction()

# quiver_test(NAME [TORCH] SOURCES ... LIBRARIES ... [LABEL L])
function(quiver_test name)
  cmake_parse_arguments(ARG "TORCH" "LABEL" "SOURCES;LIBRARIES" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${QUIVER_WARNINGS} -O1)
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} GTest::gmock GTest::gtest_main)
  if(ARG_TORCH)
    target_link_libraries(${name} PRIVATE quiver_testing)
    quiver_share_headers(${name})
  endif()
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL}
    ENVIRONMENT "QUIVER_BUILD=${CMAKE_BINARY_DIR};GTEST_OUTPUT=xml:${CMAKE_BINARY_DIR}/test-results/;GOMP_SPINCOUNT=1000")
endfunction()

# quiver_isa_kernels(TARGET SOURCE): compiles a kernel once per instruction set, in namespaces v2, v3, v4 and v4bf16.
# Such a source includes no library headers (see quiver/backend/cpu/attention_isa.h).
function(quiver_isa_kernels target source)
  get_filename_component(stem "${source}" NAME_WE)
  set(optimized -O3)
  if(QUIVER_SANITIZE)  # checks in functions that are inlined by the hundred take minutes to optimise; ASan sees null and bad objects, too
    set(optimized -O1 -fno-sanitize=null,object-size)
  endif()
  foreach(isa v2 v3 v4 v4bf16)
    string(REPLACE "v4bf16" "v4;-mavx512bf16;-mavx512vnni" march "${isa}")
    add_library(${target}_${stem}_${isa} OBJECT "${CMAKE_SOURCE_DIR}/${source}")
    target_include_directories(${target}_${stem}_${isa} PRIVATE "${CMAKE_SOURCE_DIR}")
    target_compile_options(${target}_${stem}_${isa} PRIVATE ${QUIVER_WARNINGS} -Wno-psabi ${optimized} -fno-math-errno
      -fno-trapping-math -march=x86-64-${march} $<$<IN_LIST:${isa},v4;v4bf16>:-mprefer-vector-width=512>)
    target_compile_definitions(${target}_${stem}_${isa} PRIVATE QUIVER_ISA=${isa})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${stem}_${isa}>)
    set_property(GLOBAL APPEND PROPERTY quiver_kernels $<TARGET_OBJECTS:${target}_${stem}_${isa}>)
  endforeach()
endfunction()

include(cmake/embed_text.cmake)
set(QUIVER_REPORT_ASSETS "${CMAKE_BINARY_DIR}/generated/quiver/report/assets.cpp")
file(GLOB assets CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/quiver/report/assets/*.css" "${CMAKE_SOURCE_DIR}/quiver/report/assets/*.js")
quiver_embed_text("${QUIVER_REPORT_ASSETS}" quiver::report quiver/report/assets.h ${assets})

quiver_layer(base LIBRARIES OpenSSL::Crypto PkgConfig::XXHASH)
quiver_layer(io FOLDERS base LIBRARIES nlohmann_json::nlohmann_json PkgConfig::ZSTD)
quiver_layer(forest FOLDERS base)
quiver_layer(regex FOLDERS base LIBRARIES PkgConfig::PCRE2)
quiver_layer(text FOLDERS base io regex LIBRARIES ${UTF8PROC})
quiver_layer(data FOLDERS base io text forest)
quiver_layer(results FOLDERS base io)
quiver_layer(tensor TORCH FOLDERS base io)
quiver_layer(backend TORCH FOLDERS base forest tensor)
foreach(kernel attention elementwise packed_product quantized_product low_rank routed_lora)
  quiver_isa_kernels(quiver_backend quiver/backend/cpu/${kernel}_isa.cpp)
endforeach()
quiver_layer(nn TORCH FOLDERS base tensor backend)
quiver_layer(model TORCH FOLDERS base io forest tensor backend nn)
quiver_layer(adapters TORCH FOLDERS base io regex tensor backend nn)
quiver_layer(merge TORCH FOLDERS base tensor adapters)
quiver_layer(cluster TORCH FOLDERS base tensor adapters)
quiver_layer(routing TORCH FOLDERS base tensor backend nn adapters)
quiver_layer(library TORCH COLD FOLDERS base io tensor adapters)
quiver_layer(train TORCH FOLDERS base io data forest tensor backend nn model adapters merge LIBRARIES PkgConfig::NLOPT)
quiver_layer(eval TORCH COLD FOLDERS base text data forest tensor nn model)
quiver_layer(report FOLDERS base io results)
target_sources(quiver_report PRIVATE ${QUIVER_REPORT_ASSETS})
quiver_layer(methods TORCH COLD FOLDERS base io text data forest tensor backend nn model adapters merge routing library train)
quiver_layer(recipes TORCH COLD FOLDERS base io regex text data forest tensor backend nn model adapters merge cluster routing library train eval results methods)
quiver_layer(diagnostics TORCH COLD FOLDERS base io forest tensor backend nn model adapters merge routing library train methods recipes)
quiver_layer(testing TORCH FOLDERS base forest tensor backend nn model adapters routing)

# All kernels against plain definitions, without libtorch, so that sanitizers can look on (make asan-kernels).
if(QUIVER_TESTS)
  file(GLOB kernel_tests CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/kernels/*.cpp")
  get_property(kernels GLOBAL PROPERTY quiver_kernels)
  quiver_test(quiver_kernels_test SOURCES ${kernel_tests} ${kernels} quiver/tensor/cpu.cpp quiver/backend/attention_plan.cpp
              LIBRARIES quiver_base)
  # What headers call thread-safe, by several threads (make tsan).
  quiver_test(quiver_threads_test SOURCES tests/threads/threads_test.cpp LIBRARIES quiver_data)
  quiver_test(quiver_torch_threads_test TORCH SOURCES tests/threads/torch_threads_test.cpp LIBRARIES quiver_library quiver_routing quiver_train)
endif()

file(GLOB cli_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/quiver/cli/*.cpp")
if(cli_sources)
  add_executable(quiver ${cli_sources})
  target_compile_options(quiver PRIVATE ${QUIVER_WARNINGS})
  if(NOT QUIVER_SANITIZE)  # sanitizers bring their own allocator
    target_link_libraries(quiver PRIVATE PkgConfig::JEMALLOC)
  endif()
  target_link_libraries(quiver PRIVATE quiver_diagnostics quiver_report CLI11::CLI11)
  # Reading CLI11 and instantiating its templates is nearly all of what these files cost to compile; none of them is hot.
  target_compile_options(quiver PRIVATE -O1)
  quiver_share_headers(quiver)
endif()
