#include "tests/fakes/fake-cloud-hypervisor/config.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace dormouse::fake_vmm {
namespace {

using nlohmann::json;

struct Rule {
  const char* key;
  json::value_t type;
  json fallback;  // null = none: the key stays away
};

std::string TypeName(const json& value) {
  if (value.is_string()) return "string \"" + value.get<std::string>() + "\"";
  if (value.is_boolean())
    return std::string("boolean `") + (value.get<bool>() ? "true`" : "false`");
  if (value.is_number()) return "integer `" + value.dump() + "`";
  if (value.is_array()) return "sequence";
  return value.is_object() ? "map" : "null";
}

// Checks the types of `object` and adds what is missing; the first complaint ends up in `error`.
void Apply(json& object, const std::vector<Rule>& rules, std::string* error) {
  if (!object.is_object()) {
    *error = "invalid type: " + TypeName(object) + ", expected struct";
    return;
  }
  for (const Rule& rule : rules) {
    const auto found = object.find(rule.key);
    if (found == object.end() || found->is_null()) {
      if (!rule.fallback.is_null()) object[rule.key] = rule.fallback;
      continue;
    }
    if (found->type() == rule.type) continue;
    if (rule.type == json::value_t::number_unsigned) {
      *error = "invalid type: " + TypeName(*found) + ", expected u64";
    } else if (rule.type == json::value_t::boolean) {
      *error = "invalid type: " + TypeName(*found) + ", expected a boolean";
    } else {
      *error = "invalid type: " + TypeName(*found) + ", expected a string";
    }
    return;
  }
}

void Require(const json& object, const char* key, std::string* error) {
  if (error->empty() && !object.contains(key)) *error = std::string("missing field `") + key + "`";
}

void OneOf(const json& object, const char* key, const std::vector<std::string>& variants,
           std::string* error) {
  if (!error->empty() || !object.contains(key)) return;
  const std::string value = object[key].get<std::string>();
  std::string list;
  for (const std::string& variant : variants) {
    if (value == variant) return;
    list += (list.empty() ? "`" : ", `") + variant + "`";
  }
  *error = "unknown variant `" + value + "`, expected one of " + list;
}

constexpr auto kText = json::value_t::string;
constexpr auto kNumber = json::value_t::number_unsigned;
constexpr auto kFlag = json::value_t::boolean;
const std::vector<std::string> kConsoleModes = {"Off", "Pty", "Tty", "File", "Socket", "Null"};

void ApplyEach(json& config, const char* key, const std::vector<Rule>& rules, std::string* error) {
  if (!config.contains(key)) return;
  if (!config[key].is_array()) {
    *error = "invalid type: " + TypeName(config[key]) + ", expected a sequence";
    return;
  }
  for (json& element : config[key]) {
    if (error->empty()) Apply(element, rules, error);
  }
}

}  // namespace

std::string TextAt(const json& config, const char* outer, const char* inner) {
  const auto found = config.find(outer);
  if (found == config.end() || !found->is_object()) return {};
  const auto text = found->find(inner);
  return text != found->end() && text->is_string() ? text->get<std::string>() : std::string();
}

tl::expected<json, std::string> ParseConfig(const std::string& body) {
  json config = json::parse(body, nullptr, false);
  const std::string where = " at line 1 column " + std::to_string(body.size());
  if (config.is_discarded()) return tl::unexpected<std::string>("expected value" + where);
  std::string error;
  Apply(config,
        {{"iommu", kFlag, false},
         {"watchdog", kFlag, false},
         {"pvpanic", kFlag, false},
         {"landlock_enable", kFlag, false}},
        &error);
  const auto section = [&](const char* key, const json& fallback, const std::vector<Rule>& rules) {
    if (!error.empty()) return;
    if (!config.contains(key) && !fallback.is_null()) config[key] = fallback;
    if (config.contains(key)) Apply(config[key], rules, &error);
  };
  section("cpus", json::object(), {{"boot_vcpus", kNumber, 1}, {"max_vcpus", kNumber, 1}});
  section("memory", json::object(),
          {{"size", kNumber, 536870912},
           {"mergeable", kFlag, false},
           {"shared", kFlag, false},
           {"hugepages", kFlag, false},
           {"prefault", kFlag, false},
           {"thp", kFlag, true}});
  section("payload", nullptr,
          {{"kernel", kText, nullptr},
           {"initramfs", kText, nullptr},
           {"cmdline", kText, nullptr},
           {"firmware", kText, nullptr}});
  section("rng", json::object(), {{"src", kText, "/dev/urandom"}});
  section("serial", {{"mode", "Null"}},
          {{"mode", kText, "Null"}, {"socket", kText, nullptr}, {"file", kText, nullptr}});
  section("console", {{"mode", "Tty"}}, {{"mode", kText, "Tty"}, {"file", kText, nullptr}});
  section("vsock", nullptr,
          {{"cid", kNumber, nullptr}, {"socket", kText, nullptr}, {"id", kText, nullptr}});
  if (error.empty()) {
    ApplyEach(config, "disks",
              {{"path", kText, nullptr},
               {"id", kText, nullptr},
               {"readonly", kFlag, false},
               {"direct", kFlag, false},
               {"num_queues", kNumber, 1},
               {"queue_size", kNumber, 128},
               {"sparse", kFlag, true},
               {"image_type", kText, nullptr}},
              &error);
  }
  if (error.empty()) {
    ApplyEach(config, "net",
              {{"tap", kText, nullptr},
               {"mac", kText, nullptr},
               {"id", kText, nullptr},
               {"num_queues", kNumber, 2},
               {"queue_size", kNumber, 256}},
              &error);
  }
  if (error.empty()) {
    OneOf(config["serial"], "mode", kConsoleModes, &error);
    OneOf(config["console"], "mode", kConsoleModes, &error);
    if (config.contains("vsock")) Require(config["vsock"], "cid", &error);
    if (config.contains("vsock")) Require(config["vsock"], "socket", &error);
    if (config.contains("disks")) {
      for (const json& disk : config["disks"]) {
        OneOf(disk, "image_type", {"FixedVhd", "Qcow2", "Raw", "Vhdx", "Unknown"}, &error);
      }
    }
  }
  if (!error.empty()) return tl::unexpected<std::string>(error + where);
  return config;
}

Outcome<> ValidateConfig(const json& config) {
  if (TextAt(config, "payload", "kernel").empty() &&
      TextAt(config, "payload", "firmware").empty()) {
    return Refuse({"Failed to validate config", "Payload configuration is not bootable",
                   "No bootitem provided: neither firmware nor kernel"});
  }
  std::set<std::string> ids;
  std::vector<json> devices;
  for (const char* key : {"disks", "net"}) {
    if (config.contains(key)) devices.insert(devices.end(), config[key].begin(), config[key].end());
  }
  if (config.contains("vsock")) devices.push_back(config["vsock"]);
  for (const json& device : devices) {
    const auto id = device.find("id");
    if (id == device.end() || !id->is_string()) continue;
    const auto text = id->get<std::string>();
    if (text.starts_with("__")) {
      return Refuse({"Failed to validate config", "Identifier " + text + " is invalid"});
    }
    if (!ids.insert(text).second) {
      return Refuse({"Failed to validate config", "Identifier " + text + " is not unique"});
    }
  }
  return {};
}

}  // namespace dormouse::fake_vmm
