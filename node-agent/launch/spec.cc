#include "node-agent/launch/spec.h"

#include <charconv>

namespace dormouse::launch {
namespace {

constexpr char kSeparator = '\t';  // between the fields of one value
constexpr char kHeader[] = "dormouse-launch 3";

bool IsInnerPath(std::string_view path) {
  if (path.size() < 2 || path.front() != '/' || path.back() == '/') return false;
  return path.find("//") == path.npos &&
         (std::string(path) + "/").find("/../") == std::string::npos &&
         (std::string(path) + "/").find("/./") == std::string::npos;
}

bool IsClean(std::string_view value) {
  for (char c : value) {
    if (c == '\n' || c == '\0' || c == kSeparator) return false;
  }
  return true;
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t start = 0;;) {
    const size_t end = text.find(separator, start);
    parts.push_back(text.substr(start, end == text.npos ? text.npos : end - start));
    if (end == text.npos) return parts;
    start = end + 1;
  }
}

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

bool ParseFlag(std::string_view text, bool* flag) {
  *flag = text == "1";
  return text == "0" || text == "1";
}

bool ParseBind(std::string_view value, Spec* spec) {
  const auto parts = Split(value, kSeparator);
  Bind bind;
  if (parts.size() != 4 || !ParseFlag(parts[2], &bind.writable) ||
      !ParseFlag(parts[3], &bind.executable))
    return false;
  bind.host_path = parts[0];
  bind.inner_path = parts[1];
  if (bind.host_path.empty() || bind.host_path[0] != '/' || !IsInnerPath(bind.inner_path))
    return false;
  spec->binds.push_back(std::move(bind));
  return true;
}

bool ParseDevice(std::string_view value, Spec* spec) {
  const auto parts = Split(value, kSeparator);
  Device device;
  if (parts.size() != 4 || !ParseNumber(parts[1], &device.major) ||
      !ParseNumber(parts[2], &device.minor) || !ParseFlag(parts[3], &device.block)) {
    return false;
  }
  device.inner_path = parts[0];
  if (!IsInnerPath(device.inner_path) || !device.inner_path.starts_with("/dev/")) return false;
  spec->devices.push_back(std::move(device));
  return true;
}

bool ParseLine(std::string_view key, std::string_view value, Spec* spec) {
  if (key == "arg") {
    spec->command.emplace_back(value);
    return true;
  }
  if (key == "bind") return ParseBind(value, spec);
  if (key == "device") return ParseDevice(value, spec);
  if (key == "uid") return ParseNumber(value, &spec->uid);
  if (key == "gid") return ParseNumber(value, &spec->gid);
  if (key == "mount_point") {
    spec->mount_point = value;
    return !value.empty() && value[0] == '/';
  }
  if (key == "system_libraries") return ParseFlag(value, &spec->system_libraries);
  if (key == "host_mounts") return ParseFlag(value, &spec->host_mounts);
  if (key == "max_open_files") return ParseNumber(value, &spec->max_open_files);
  if (key == "max_file_bytes") return ParseNumber(value, &spec->max_file_bytes);
  if (key == "oom_score_adjust") return ParseNumber(value, &spec->oom_score_adjust);
  return false;
}

bool Complete(const Spec& spec, std::string* error) {
  if (spec.command.empty() || !IsInnerPath(spec.command[0])) {
    *error = "no command with an absolute path";
  } else if (spec.uid == 0 || spec.gid == 0) {
    *error = "uid and gid must not be 0";
  } else if (spec.mount_point.empty()) {
    *error = "no mount_point";
  } else if (spec.max_open_files == 0) {
    *error = "no max_open_files";
  } else {
    return true;
  }
  return false;
}

}  // namespace

bool FormatSpec(const Spec& spec, std::string* text, std::string* error) {
  *text = std::string(kHeader) + "\n";
  bool clean = true;
  const auto line = [&](const char* key, const std::string& value) {
    *text += std::string(key) + "=" + value + "\n";
  };
  const auto field = [&](const std::string& value) {
    clean = clean && IsClean(value);
    return value;
  };
  const auto flag = [](bool on) { return std::string(on ? "1" : "0"); };
  for (const auto& argument : spec.command) line("arg", field(argument));
  line("uid", std::to_string(spec.uid));
  line("gid", std::to_string(spec.gid));
  line("mount_point", field(spec.mount_point));
  for (const auto& bind : spec.binds) {
    line("bind", field(bind.host_path) + kSeparator + field(bind.inner_path) + kSeparator +
                     flag(bind.writable) + kSeparator + flag(bind.executable));
  }
  for (const auto& device : spec.devices) {
    line("device", field(device.inner_path) + kSeparator + std::to_string(device.major) +
                       kSeparator + std::to_string(device.minor) + kSeparator + flag(device.block));
  }
  line("system_libraries", flag(spec.system_libraries));
  line("host_mounts", flag(spec.host_mounts));
  line("max_open_files", std::to_string(spec.max_open_files));
  line("max_file_bytes", std::to_string(spec.max_file_bytes));
  line("oom_score_adjust", std::to_string(spec.oom_score_adjust));
  if (!clean) {
    *error = "a path or argument contains a newline, a tab or NUL";
    return false;
  }
  return Complete(spec, error);
}

bool ParseSpec(std::string_view text, Spec* spec, std::string* error) {
  *spec = Spec();
  if (text.empty() || text.back() != '\n') {
    *error = "the spec is cut off";
    return false;
  }
  text.remove_suffix(1);
  const auto lines = Split(text, '\n');
  if (lines[0] != kHeader) {
    *error = "the spec is of another version";
    return false;
  }
  for (size_t i = 1; i < lines.size(); ++i) {
    const size_t equals = lines[i].find('=');
    if (equals == lines[i].npos ||
        !ParseLine(lines[i].substr(0, equals), lines[i].substr(equals + 1), spec)) {
      *error = "spec line not understood: " + std::string(lines[i]);
      return false;
    }
  }
  return Complete(*spec, error);
}

}  // namespace dormouse::launch
