// Bytes as an API server's watch and list bodies, in two pieces: nothing they contain may crash us,
// nor may where a read ends change what is understood.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "src/common/kube/watch_decoder.h"

namespace {

using dormouse::Result;
using dormouse::kube::ListDecoder;
using dormouse::kube::WatchDecoder;
using dormouse::kube::WatchEventType;
using nlohmann::json;

constexpr std::size_t kLimit = 4096;

std::string Watch(std::string_view first, std::string_view second) {
  std::string heard;
  WatchDecoder decoder(
      [&heard](WatchEventType type, const json& object) -> Result<> {
        heard += std::to_string(static_cast<int>(type)) +
                 object.dump(-1, ' ', false, json::error_handler_t::replace);
        (void)dormouse::kube::RefOf(object);
        (void)dormouse::kube::ParseObjectMeta(object);
        return {};
      },
      kLimit);
  if (auto fed = decoder.Feed(first); !fed) return heard + "!";
  if (auto fed = decoder.Feed(second); !fed) return heard + "!";
  return heard;
}

std::string List(std::string_view first, std::string_view second) {
  std::string heard;
  ListDecoder decoder(
      [&heard](const json& item) -> Result<> {
        heard += item.dump(-1, ' ', false, json::error_handler_t::replace);
        return {};
      },
      kLimit);
  if (auto fed = decoder.Feed(first); !fed) return heard + "!";
  if (auto fed = decoder.Feed(second); !fed) return heard + "!";
  return heard + decoder.resource_version().text() + decoder.continue_token() +
         (decoder.Done() ? "." : "");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t cut = text.empty() ? 0 : data[0] % (text.size() + 1);
  if (Watch(text, "") != Watch(text.substr(0, cut), text.substr(cut))) __builtin_trap();
  if (List(text, "") != List(text.substr(0, cut), text.substr(cut))) __builtin_trap();
  return 0;
}
