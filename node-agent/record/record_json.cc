#include "node-agent/record/record_json.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/common/base/json_text.h"
#include "src/common/base/time.h"

namespace dormouse {

using nlohmann::json;

namespace {

bool SaysMore(const json& read, const json& known) {
  if (!read.is_object() || !known.is_object()) return false;
  for (const auto& [key, value] : read.items()) {
    if (!known.contains(key) || SaysMore(value, known.at(key))) return true;
  }
  return false;
}

}  // namespace

std::string UnknownIn(const json& read, const json& known) {
  return SaysMore(read, known) ? JsonText(read) : "";
}

void KeepUnknown(const json& read, const json& known, json* now) {
  for (const auto& [key, value] : read.items()) {
    if (!known.contains(key)) {
      (*now)[key] = value;
    } else if (value.is_object() && known.at(key).is_object() && now->at(key) == known.at(key)) {
      KeepUnknown(value, known.at(key), &now->at(key));
    }
  }
}

json ShapeToJson(const Shape& shape) {
  return {
      {"image",
       {{"name", shape.image_name}, {"digest", shape.image_digest}, {"bytes", shape.image_bytes}}},
      {"diskBytes", shape.disk_bytes},
      {"resources",
       {{"vcpus", shape.resources.vcpus}, {"memoryBytes", shape.resources.memory_bytes}}},
      {"digests",
       {{"vmm", shape.vmm_digest},
        {"kernel", shape.kernel_digest},
        {"initramfs", shape.initramfs_digest}}}};
}

Shape ReadShape(const json& object) {
  Shape shape;
  shape.image_name = object.at("image").at("name");
  shape.image_digest = object.at("image").at("digest");
  shape.image_bytes = object.at("image").at("bytes");
  shape.disk_bytes = object.at("diskBytes");
  shape.resources.vcpus = object.at("resources").at("vcpus");
  shape.resources.memory_bytes = object.at("resources").at("memoryBytes");
  shape.vmm_digest = object.at("digests").at("vmm");
  shape.kernel_digest = object.at("digests").at("kernel");
  shape.initramfs_digest = object.at("digests").at("initramfs");
  return shape;
}

json FiguresToJson(const CaptureFigures& figures) {
  json object = {{"memoryBytes", figures.memory_bytes},
                 {"writtenBytes", figures.written_bytes},
                 {"pauseWindowMs", figures.pause_window_ms},
                 {"storeBytes", figures.store_bytes}};
  if (figures.stages) {
    for (const auto& [name, took] : api::kCaptureStages)
      object["stagesMs"][name] = ((*figures.stages).*took).count();
  }
  return object;
}

CaptureFigures ReadFigures(const json& object) {
  CaptureFigures figures{object.at("memoryBytes"), object.at("writtenBytes"),
                         object.at("pauseWindowMs"), object.at("storeBytes")};
  if (object.contains("stagesMs")) {
    api::CaptureStages& stages = figures.stages.emplace();
    for (const auto& [name, took] : api::kCaptureStages)
      stages.*took = std::chrono::milliseconds(object.at("stagesMs").at(name).get<int64_t>());
  }
  return figures;
}

api::SandboxUid ReadUid(const json& object, const char* key) {
  auto uid = api::SandboxUid::Parse(object.at(key).get<std::string>());
  if (!uid) throw std::invalid_argument(key);
  return std::move(*uid);
}

json TimeOrNull(const std::optional<WallTime>& time) {
  return time ? json(FormatMicroTime(*time)) : json(nullptr);
}

std::optional<WallTime> ReadTime(const json& object, const char* key) {
  const json& value = object.at(key);
  if (value.is_null()) return std::nullopt;
  const auto time = ParseTime(value.get<std::string>());
  if (!time) throw std::invalid_argument(key);
  return std::chrono::floor<std::chrono::microseconds>(*time);  // as it is written
}

}  // namespace dormouse
