// What the records of sandboxes and of templates have in common, as JSON. Private to record.cc and
// template_record.cc.
//
// Pure; thread-safe. What reads throws for whatever the other half did not write, as
// OpenSealedJson expects.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "node-agent/record/record.h"
#include "src/common/base/clock.h"

namespace dormouse {

/// Members of the record's own object.
[[nodiscard]] nlohmann::json ShapeToJson(const Shape& shape);
[[nodiscard]] Shape ReadShape(const nlohmann::json& object);
[[nodiscard]] nlohmann::json FiguresToJson(const CaptureFigures& figures);
[[nodiscard]] CaptureFigures ReadFigures(const nlohmann::json& object);
[[nodiscard]] api::SandboxUid ReadUid(const nlohmann::json& object, const char* key);
/// `read` as text where it holds a field that `known` has not: a newer agent wrote it. `known` is
/// what we understood of it, as JSON again. Else nothing.
[[nodiscard]] std::string UnknownIn(const nlohmann::json& read, const nlohmann::json& known);
/// Puts fields of `read` that we do not know into `now`, which is to be written. Those of an object
/// that has become another, like the VMM's process, were about the one before, and go with it.
void KeepUnknown(const nlohmann::json& read, const nlohmann::json& known, nlohmann::json* now);
[[nodiscard]] nlohmann::json TimeOrNull(const std::optional<WallTime>& time);
[[nodiscard]] std::optional<WallTime> ReadTime(const nlohmann::json& object, const char* key);

}  // namespace dormouse
