// The command line of cloud-hypervisor v53.0, as far as its API mode goes. Pure.
#pragma once

#include <string>
#include <tl/expected.hpp>

namespace dormouse::fake_vmm {

struct Options {
  bool version = false;
  std::string api_socket;
  std::string event_path;
  int event_fd = -1;
  std::string log_file;  ///< empty: stderr
  bool no_shutdown = false;
};

/// What the real one prints to stderr before it exits with `code`.
struct Complaint {
  int code = 2;
  std::string text;
};

tl::expected<Options, Complaint> ParseOptions(int argc, char** argv);

}  // namespace dormouse::fake_vmm
