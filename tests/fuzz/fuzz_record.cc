// A record file is what a power cut, a bad disk or a careless hand left: it decodes or is refused,
// and what decodes is encoded again as it was. The input is tried as a file, and as a body under a
// right checksum.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "node-agent/record/record.h"
#include "src/common/base/hash.h"

namespace {

void Try(std::string_view text) {
  const auto record = dormouse::DecodeRecord(text);
  if (!record) return;
  // Its text, and not the value: that remembers a newer agent's fields as they were read, beside
  // those that were left out.
  const std::string text_again = dormouse::EncodeRecord(*record);
  const auto again = dormouse::DecodeRecord(text_again);
  if (!again || dormouse::EncodeRecord(*again) != text_again) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Try(text);
  const auto body = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (body.is_discarded()) return 0;
  const std::string canonical = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  Try(nlohmann::json{{"version", dormouse::Record::kVersion},
                     {"checksum", dormouse::Sha256(canonical)},
                     {"record", body}}
          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return 0;
}
