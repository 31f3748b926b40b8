#include "src/common/kube/object_meta.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/common/base/time.h"

namespace dormouse::kube {
namespace {

using nlohmann::json;

std::string Text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::map<std::string, std::string> TextMap(const json& object, const char* key) {
  std::map<std::string, std::string> map;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_object()) return map;
  for (const auto& [name, value] : found->items()) {
    if (value.is_string()) map.emplace(name, value.get<std::string>());
  }
  return map;
}

}  // namespace

ObjectKey ObjectKey::Parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return {"", std::string(text)};
  return {std::string(text.substr(0, slash)), std::string(text.substr(slash + 1))};
}

bool ResourceVersion::IsAtLeast(const ResourceVersion& other) const {
  const auto is_number = [](const std::string& text) {
    return !text.empty() && text.size() <= 19 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!is_number(text_) || !is_number(other.text_)) return text_ == other.text_;
  return std::stoull(text_) >= std::stoull(other.text_);
}

bool ObjectMeta::HasFinalizer(const std::string& finalizer) const {
  return std::find(finalizers.begin(), finalizers.end(), finalizer) != finalizers.end();
}

Result<ObjectMeta> ParseObjectMeta(const json& object) {
  const auto found = object.is_object() ? object.find("metadata") : object.end();
  if (found == object.end() || !found->is_object())
    return Fail(ErrorCode::kCorrupt, "object without metadata");
  const json& metadata = *found;
  ObjectMeta meta;
  meta.ns = Text(metadata, "namespace");
  meta.name = Text(metadata, "name");
  meta.uid = Text(metadata, "uid");
  meta.resource_version = ResourceVersion(Text(metadata, "resourceVersion"));
  if (meta.name.empty() || meta.uid.empty() || meta.resource_version.empty()) {
    return Fail(ErrorCode::kCorrupt, "metadata without name, uid or resourceVersion");
  }
  if (const auto generation = metadata.find("generation");
      generation != metadata.end() && generation->is_number_integer()) {
    meta.generation = generation->get<int64_t>();
  }
  if (const auto time = ParseTime(Text(metadata, "creationTimestamp"))) meta.creation_time = *time;
  meta.deletion_time = ParseTime(Text(metadata, "deletionTimestamp"));
  if (const auto list = metadata.find("finalizers"); list != metadata.end() && list->is_array()) {
    for (const json& entry : *list) {
      if (entry.is_string()) meta.finalizers.push_back(entry.get<std::string>());
    }
  }
  meta.labels = TextMap(metadata, "labels");
  meta.annotations = TextMap(metadata, "annotations");
  if (const auto list = metadata.find("ownerReferences");
      list != metadata.end() && list->is_array()) {
    for (const json& owner : *list) {
      if (!owner.is_object()) continue;
      meta.owners.push_back({Text(owner, "apiVersion"), Text(owner, "kind"), Text(owner, "name"),
                             Text(owner, "uid")});
    }
  }
  return meta;
}

}  // namespace dormouse::kube
