// What controller and agent make of a Sandbox, for a test that asks an API server the same.
//
// Each line of standard input is a Sandbox or a SnapshotTemplate in JSON; each line of the answer
// is {"refused": why} or what was read: of a Sandbox {"cpu", "memory", "disk"} with the effective
// sizes, disk null where none was asked for.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "src/common/api/sandbox.h"
#include "src/common/api/snapshot_template.h"
#include "src/common/api/spec_check.h"
#include "src/common/base/json_text.h"

namespace dormouse::api {
namespace {

nlohmann::json Read(const std::string& line) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (object.value("kind", "") == "SnapshotTemplate") {
    const auto read = ParseSnapshotTemplate(object);
    return read ? nlohmann::json::object() : nlohmann::json{{"refused", read.error().message()}};
  }
  const auto sandbox = ParseSandbox(object);
  if (!sandbox) return {{"refused", sandbox.error().message()}};
  if (const auto checked = CheckSpec(sandbox->spec); !checked)
    return {{"refused", checked.error().message()}};
  const Resources resources = sandbox->EffectiveResources();
  nlohmann::json read = {{"cpu", resources.vcpus}, {"memory", resources.memory_bytes}};
  read["disk"] = nullptr;
  if (sandbox->spec.disk_bytes) read["disk"] = *sandbox->spec.disk_bytes;
  return read;
}

}  // namespace
}  // namespace dormouse::api

int main() {
  for (std::string line; std::getline(std::cin, line);)
    std::cout << dormouse::JsonText(dormouse::api::Read(line)) << std::endl;
  return 0;
}
