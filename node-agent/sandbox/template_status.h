// What the API is told of a template. A pure function, as status.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "node-agent/record/template_record.h"
#include "node-agent/sandbox/status.h"
#include "src/common/api/snapshot_template.h"

namespace dormouse {

struct TemplateStatusInputs {
  std::string node_name;
  const TemplateRecord* record = nullptr;   ///< nothing: it is not captured yet
  bool capturing = false;                   ///< its source is here, and asked for it
  std::optional<Problem> waiting;           ///< why it is not captured yet
  std::optional<Problem> failed;            ///< for good
  std::vector<std::string> holders;         ///< sandboxes that start or sleep from it
  std::optional<std::string> damaged;       ///< how its memory is not what was captured
  std::optional<std::string> incompatible;  ///< why this node cannot run it
  bool released = false;                    ///< its files are gone, or are kept as was asked
};

[[nodiscard]] api::SnapshotTemplateStatus ComputeTemplateStatus(const api::SnapshotTemplate& object,
                                                                const TemplateStatusInputs& inputs,
                                                                WallTime now);

}  // namespace dormouse
