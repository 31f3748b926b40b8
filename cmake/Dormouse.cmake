# How every room of the house is built: one library, one test program, the same warnings.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_LINK_DEPENDS_NO_SHARED ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()

find_program(DORMOUSE_CCACHE ccache)
if(DORMOUSE_CCACHE AND NOT DORMOUSE_NO_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${DORMOUSE_CCACHE})
endif()

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(DORMOUSE_SANITIZE "" CACHE STRING "address,undefined or thread; empty for none")
option(DORMOUSE_TESTS "Build the unit tests" ON)
option(DORMOUSE_FUZZ "Build the fuzz targets (needs clang)" OFF)

add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Werror -fstack-protector-strong)
if(DORMOUSE_SANITIZE)
  add_compile_options(-fsanitize=${DORMOUSE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${DORMOUSE_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # GCC 12's flow-sensitive warnings give false positives on instrumented code.
    add_compile_options(-Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-tsan)
  endif()
else()
  add_compile_definitions($<$<CONFIG:Release,RelWithDebInfo>:_FORTIFY_SOURCE=2>)
  add_link_options(-Wl,-z,relro,-z,now -Wl,--as-needed)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # False positives on std::string's operator+ in GCC 12 (its bug 105651).
  add_compile_options(-Wno-restrict)
  if(CMAKE_UNITY_BUILD)
    # Meant for headers, and GCC takes for one each file that a unity file includes.
    add_compile_options(-Wno-subobject-linkage)
  endif()
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  add_compile_options(-Wthread-safety)
endif()

find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
if(DORMOUSE_TESTS)
  find_package(GTest REQUIRED)
  enable_testing()
endif()

# Adds the room in DIR when it has a CMakeLists.txt.
function(dormouse_room dir)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${dir}/CMakeLists.txt)
    add_subdirectory(${CMAKE_SOURCE_DIR}/${dir})
  endif()
endfunction()

# dormouse_library(NAME base SRCS a.cc b.cc DEPS other Threads::Threads TESTS a_test.cc TEST_DEPS x)
#
# Makes the static library dormouse_<name> and, with TESTS, the program <name>_test, found by ctest
# as one entry per test case. Includes are written from the top: "src/common/base/result.h",
# "node-agent/host/dm.h". DEPS name rooms (base) or CMake targets (OpenSSL::Crypto).
function(dormouse_library)
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS;TESTS;TEST_DEPS" ${ARGN})
  add_library(dormouse_${arg_NAME} STATIC ${arg_SRCS})
  target_include_directories(dormouse_${arg_NAME} PUBLIC ${CMAKE_SOURCE_DIR})
  dormouse_link(dormouse_${arg_NAME} PUBLIC ${arg_DEPS})
  dormouse_check_arrows(${arg_NAME} "${arg_DEPS}" ${arg_SRCS})
  if(arg_TESTS AND DORMOUSE_TESTS)
    dormouse_test(NAME ${arg_NAME}_test SRCS ${arg_TESTS} DEPS ${arg_NAME} ${arg_TEST_DEPS})
    include(GoogleTest)
    gtest_discover_tests(${arg_NAME}_test TEST_PREFIX "${arg_NAME}." DISCOVERY_MODE PRE_TEST
      PROPERTIES TIMEOUT 120 LABELS unit)
  endif()
endfunction()

# Arrows point one way: what a room's sources include lies in the room, or in one that it links, however far down. A header
# needs no symbol, so the linker would not notice; the configuration fails instead.
function(dormouse_check_arrows name deps)
  file(RELATIVE_PATH here ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  set(rooms ${here})
  foreach(source ${ARGN})
    get_filename_component(folder ${here}/${source} DIRECTORY)
    list(APPEND rooms ${folder})
  endforeach()
  foreach(dep ${deps})
    get_property(below GLOBAL PROPERTY DORMOUSE_ROOMS_${dep})
    list(APPEND rooms ${below})
  endforeach()
  list(REMOVE_DUPLICATES rooms)
  set_property(GLOBAL PROPERTY DORMOUSE_ROOMS_${name} ${rooms})
  foreach(source ${ARGN})
    string(REGEX REPLACE "\\.cc$" ".h" header ${source})
    foreach(file ${source} ${header})
      if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
        file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/${file} includes REGEX "^#include \"(src|node-agent|controller|guest-agent|cli)/")
        foreach(line ${includes})
          string(REGEX REPLACE "^#include \"(.*)/[^/]*\".*" "\\1" room ${line})
          if(NOT room IN_LIST rooms)
            message(FATAL_ERROR "${here}/${file} includes ${room}, which ${name} does not link: an arrow against the stream")
          endif()
        endforeach()
      endif()
    endforeach()
  endforeach()
endfunction()

# For what only tests consist of: it runs for seconds and would compile for minutes, so it is not optimized (which
# _FORTIFY_SOURCE needs). What they test is built as it ships.
function(dormouse_not_optimized target)
  target_compile_options(${target} PRIVATE "$<$<CONFIG:Release>:-O0;-U_FORTIFY_SOURCE>")
endfunction()

# For the stand-ins that benchmarks run, too.
function(dormouse_less_optimized target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

# dormouse_test(NAME kube_client_test SRCS kube_client_test.cc DEPS kube): a GoogleTest program.
function(dormouse_test)
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${arg_NAME} ${arg_SRCS})
  dormouse_not_optimized(${arg_NAME})
  dormouse_link(${arg_NAME} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main)
endfunction()

# Links TARGET to rooms by their short names, and to anything else as it is named.
function(dormouse_link target scope)
  foreach(dep ${ARGN})
    if(dep MATCHES "::|^-|^/" OR TARGET ${dep})
      target_link_libraries(${target} ${scope} ${dep})
    elseif(EXISTS ${dep} OR dep MATCHES "\\.(so|a)$")
      target_link_libraries(${target} ${scope} ${dep})
    else()
      target_link_libraries(${target} ${scope} dormouse_${dep})
    endif()
  endforeach()
endfunction()

# dormouse_program(NAME dormouse-agent SRCS main.cc DEPS sandbox serve)
function(dormouse_program)
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${arg_NAME} ${arg_SRCS})
  dormouse_link(${arg_NAME} PRIVATE ${arg_DEPS})
  set_target_properties(${arg_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# dormouse_fuzzer(NAME fuzz_record SRCS fuzz_record.cc DEPS sandbox): a libFuzzer program; clang only.
# The target `fuzzers` is all of them.
function(dormouse_fuzzer)
  if(NOT DORMOUSE_FUZZ)
    return()
  endif()
  cmake_parse_arguments(arg "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${arg_NAME} ${arg_SRCS})
  dormouse_link(${arg_NAME} PRIVATE ${arg_DEPS})
  target_link_options(${arg_NAME} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${arg_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  if(NOT TARGET fuzzers)
    add_custom_target(fuzzers)
  endif()
  add_dependencies(fuzzers ${arg_NAME})
endfunction()
