// What the fake VMM answers when it refuses: causes as v53.0 words them, outermost first. Pure.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

namespace dormouse::fake_vmm {

using Causes = std::vector<std::string>;

struct Refusal {
  int status = 500;
  Causes causes;
};

template <typename T = void>
using Outcome = tl::expected<T, Refusal>;

inline tl::unexpected<Refusal> Refuse(Causes causes, int status = 500) {
  return tl::unexpected<Refusal>(Refusal{status, std::move(causes)});
}
/// The same refusal below the words of who asked for it.
template <typename T>
Outcome<T> Under(Causes outer, Outcome<T> outcome) {
  if (outcome) return outcome;
  Refusal refusal = std::move(outcome).error();
  outer.insert(outer.end(), refusal.causes.begin(), refusal.causes.end());
  refusal.causes = std::move(outer);
  return tl::unexpected<Refusal>(std::move(refusal));
}

/// As Rust's io::Error prints it: "No such file or directory (os error 2)".
[[nodiscard]] std::string OsCause(int errnum);
/// Text in double quotes, as Rust's {:?} prints a path.
[[nodiscard]] std::string Quoted(const std::string& text);

}  // namespace dormouse::fake_vmm
