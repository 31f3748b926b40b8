// VmConfig as the fake understands it: what Dormouse uses of it, defaults filled in as v53.0 does.
// Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <tl/expected.hpp>

#include "tests/fakes/fake-cloud-hypervisor/answer.h"

namespace dormouse::fake_vmm {

/// The config with its defaults, or why serde would not take it (the text of a 400).
tl::expected<nlohmann::json, std::string> ParseConfig(const std::string& body);

/// What the VMM checks at boot: a kernel, ids that are distinct and not its own.
Outcome<> ValidateConfig(const nlohmann::json& config);

/// `config[outer][inner]` as text; empty when it is not there.
[[nodiscard]] std::string TextAt(const nlohmann::json& config, const char* outer,
                                 const char* inner);

}  // namespace dormouse::fake_vmm
