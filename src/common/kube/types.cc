#include "src/common/kube/types.h"

#include <nlohmann/json.hpp>

namespace dormouse::kube {
namespace {

void Append(std::string& path, std::string_view part) {
  path += '/';
  path += PercentEncode(part);
}

}  // namespace

std::string PercentEncode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

std::string ResourceType::ApiVersion() const {
  return group.empty() ? version : group + "/" + version;
}

std::string ResourceType::Path(std::string_view ns, std::string_view name,
                               std::string_view subresource) const {
  std::string path = group.empty() ? "/api" : "/apis";
  if (!group.empty()) Append(path, group);
  Append(path, version);
  if (namespaced && !ns.empty()) {
    path += "/namespaces";
    Append(path, ns);
  }
  Append(path, plural);
  if (!name.empty()) Append(path, name);
  if (!subresource.empty()) Append(path, subresource);
  return path;
}

Result<ObjectRef> RefOf(const nlohmann::json& object) {
  const auto metadata = object.is_object() ? object.find("metadata") : object.end();
  if (metadata == object.end() || !metadata->is_object()) {
    return Fail(ErrorCode::kCorrupt, "object without metadata");
  }
  const auto text = [&metadata](const char* key) -> std::string {
    const auto found = metadata->find(key);
    return found != metadata->end() && found->is_string() ? found->get<std::string>() : "";
  };
  ObjectRef ref{
      {text("namespace"), text("name")}, text("uid"), ResourceVersion(text("resourceVersion"))};
  if (ref.key.name.empty()) return Fail(ErrorCode::kCorrupt, "object without a name");
  return ref;
}

Result<ObjectRef> RefOfText(std::string_view object) {
  const auto parsed = nlohmann::json::parse(object, nullptr, false);
  if (parsed.is_discarded()) return Fail(ErrorCode::kCorrupt, "object is not JSON");
  return RefOf(parsed);
}

}  // namespace dormouse::kube
