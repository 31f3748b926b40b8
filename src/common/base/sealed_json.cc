#include "src/common/base/sealed_json.h"

#include <nlohmann/json.hpp>

#include "src/common/base/hash.h"
#include "src/common/base/json_text.h"

namespace dormouse {
namespace {

using nlohmann::json;

}  // namespace

std::string SealJson(const Seal& seal, const json& value) {
  return JsonText(json{{"version", seal.version},
                       {"oldestWriter", seal.oldest_writer},
                       {"checksum", Sha256(JsonText(value))},
                       {seal.name, value}}) +
         "\n";
}

Result<> OpenSealedJson(const Seal& seal, std::string_view text,
                        const std::function<void(const json& value)>& read) {
  const std::string name = seal.name;
  try {
    bool fraction = false;
    const json whole = json::parse(text, [&](int, json::parse_event_t event, json& parsed) {
      fraction = fraction || (event == json::parse_event_t::value && parsed.is_number_float());
      return true;
    });
    // To read one as an integer that cannot hold it is undefined.
    if (fraction) {
      return Fail(ErrorCode::kCorrupt, name + " holds a number that is not a 64-bit integer");
    }
    const int version = whole.at("version");
    const int oldest_writer = whole.value("oldestWriter", version);
    if (oldest_writer > seal.version) {
      return Fail(ErrorCode::kUnsupported,
                  name + " of version " + std::to_string(version) +
                      " may only be written by version " + std::to_string(oldest_writer) +
                      " and newer, and this is " + std::to_string(seal.version));
    }
    if (version < 1) {
      return Fail(ErrorCode::kCorrupt,
                  name + " version " + std::to_string(version) + " is not known");
    }
    const json& value = whole.at(name);
    if (Sha256(JsonText(value)) != whole.at("checksum").get<std::string>()) {
      return Fail(ErrorCode::kCorrupt, name + " does not match its checksum");
    }
    read(value);
    return {};
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kCorrupt, name + " is malformed: " + error.what());
  }
}

}  // namespace dormouse
