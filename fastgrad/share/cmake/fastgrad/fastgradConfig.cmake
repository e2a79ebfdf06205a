# find_package(fastgrad) gives the target fastgrad::fastgrad: the headers, with the flags that keep the bits.
if(NOT TARGET fastgrad::fastgrad)
  get_filename_component(fastgrad_PACKAGE "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
  set(fastgrad_INCLUDE_DIR "${fastgrad_PACKAGE}/include")
  if(NOT EXISTS "${fastgrad_INCLUDE_DIR}") # an editable install: the headers lie in its checkout
    set(fastgrad_INCLUDE_DIR "${fastgrad_PACKAGE}/../csrc/include")
  endif()
  add_library(fastgrad::fastgrad INTERFACE IMPORTED)
  set_target_properties(
    fastgrad::fastgrad
    PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${fastgrad_INCLUDE_DIR}"
               INTERFACE_COMPILE_FEATURES cxx_std_17
               INTERFACE_COMPILE_DEFINITIONS FASTGRAD_STRICT
               INTERFACE_COMPILE_OPTIONS "-ffp-contract=off;-fno-math-errno;-fno-trapping-math")
endif()
