#include "src/common/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>

#include "src/common/base/json_text.h"

namespace dormouse::log {
namespace {

std::atomic<bool> g_json{false};

spdlog::level::level_enum SpdlogLevel(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& Logger() {
  // Never destroyed: threads may log until the process ends.
  static spdlog::logger* logger = [] {
    auto* made = new spdlog::logger("dormouse", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %L %v", spdlog::pattern_time_type::utc);
    return made;
  }();
  return *logger;
}

std::string Text(std::string_view message, std::initializer_list<Field> fields) {
  std::string line(message);
  for (const Field& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    // Control characters of a guest or a user must not forge a line of their own.
    line += JsonText(nlohmann::json(field.value));
  }
  return line;
}

std::string Json(Level level, std::string_view message, std::initializer_list<Field> fields) {
  nlohmann::json object{{"level", spdlog::level::to_string_view(SpdlogLevel(level)).data()},
                        {"msg", message}};
  for (const Field& field : fields) object[std::string(field.key)] = field.value;
  std::string text = JsonText(object);
  text.erase(0, 1);
  return text;
}

}  // namespace

void Configure(Level lowest, bool json) {
  g_json = json;
  Logger().set_level(SpdlogLevel(lowest));
  Logger().set_pattern(
      json ? "{\"time\":\"%Y-%m-%dT%H:%M:%S.%eZ\",%v" : "%Y-%m-%dT%H:%M:%S.%eZ %L %v",
      spdlog::pattern_time_type::utc);
  Logger().flush_on(spdlog::level::debug);
}

bool ParseLevel(std::string_view text, Level* level) {
  if (text == "debug")
    *level = Level::kDebug;
  else if (text == "info")
    *level = Level::kInfo;
  else if (text == "warning")
    *level = Level::kWarning;
  else if (text == "error")
    *level = Level::kError;
  else
    return false;
  return true;
}

void Write(Level level, std::string_view message, std::initializer_list<Field> fields) {
  const auto spd_level = SpdlogLevel(level);
  if (!Logger().should_log(spd_level)) return;
  Logger().log(spd_level, g_json ? Json(level, message, fields) : Text(message, fields));
}

}  // namespace dormouse::log
