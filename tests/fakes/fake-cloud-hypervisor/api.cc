#include "tests/fakes/fake-cloud-hypervisor/api.h"

#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "tests/fakes/fake-cloud-hypervisor/config.h"

namespace dormouse::fake_vmm {
namespace {

using nlohmann::json;

constexpr std::string_view kRoot = "/api/v1/";

Reply Error(int status, const Causes& causes) {
  return {status, json(causes).dump(-1, ' ', false, json::error_handler_t::replace)};
}

Reply BadRequest() {
  return Error(400, {"Bad Request"});
}

Reply BadJson(const std::string& why) {
  return Error(400, {"Failed to deserialize JSON", why});
}

// Below "Error from API" and the line of the call (ApiError, v53.0).
Reply Refused(const char* line, const Refusal& refusal) {
  Causes causes = {"Error from API", line};
  causes.insert(causes.end(), refusal.causes.begin(), refusal.causes.end());
  return Error(refusal.status, causes);
}

Reply Done(const char* line, const Outcome<>& outcome) {
  return outcome ? Reply{204, ""} : Refused(line, outcome.error());
}

Reply Told(const char* line, const Outcome<std::string>& outcome) {
  return outcome ? Reply{200, *outcome} : Refused(line, outcome.error());
}

struct Action {
  std::string_view name;
  const char* line;
  Outcome<> (*act)(Vm&);
};

// PUTs without a body.
constexpr std::array kActions = {
    Action{"vm.boot", "The VM could not boot", [](Vm& vm) { return vm.Boot(); }},
    Action{"vm.delete", "The VM could not be deleted", [](Vm& vm) { return vm.Delete(); }},
    Action{"vm.nmi", "Error triggering NMI", [](Vm& vm) { return vm.Poke(); }},
    Action{"vm.pause", "The VM could not be paused", [](Vm& vm) { return vm.Pause(); }},
    Action{"vm.power-button", "Error triggering power button", [](Vm& vm) { return vm.Poke(); }},
    Action{"vm.reboot", "The VM could not reboot", [](Vm& vm) { return vm.Reboot(); }},
    Action{"vm.resume", "The VM could not resume", [](Vm& vm) { return vm.Resume(); }},
    Action{"vm.shutdown", "The VM could not shutdown", [](Vm& vm) { return vm.Shutdown(); }},
};

std::string MissingField(const char* field, const std::string& body) {
  return std::string("missing field `") + field + "` at line 1 column " +
         std::to_string(body.size());
}

Reply Snapshot(Vm& vm, const std::string& body) {
  const json request = json::parse(body, nullptr, false);
  if (!request.is_object()) return BadJson("EOF while parsing an object");
  const std::string url = request.value("destination_url", "");
  if (url.empty()) return BadJson(MissingField("destination_url", body));
  return Done("The VM could not be snapshotted", vm.Snapshot(url));
}

Reply Restore(Vm& vm, const std::string& body) {
  const json request = json::parse(body, nullptr, false);
  if (!request.is_object()) return BadJson("EOF while parsing an object");
  const auto url = request.find("source_url");
  if (url == request.end() || !url->is_string()) return BadJson(MissingField("source_url", body));
  std::string mode = "Copy";
  if (const auto given = request.find("memory_restore_mode");
      given != request.end() && given->is_string()) {
    mode = *given;
  }
  if (mode != "Copy" && mode != "OnDemand") {
    return BadJson("unknown variant `" + mode + "`, expected `Copy` or `OnDemand`");
  }
  const auto flag = [&](const char* key) {
    const auto given = request.find(key);
    return given != request.end() && given->is_boolean() && given->get<bool>();
  };
  return Done("The VM could not be restored",
              vm.Restore(*url, flag("prefault"), mode, flag("resume")));
}

}  // namespace

Reply Api::Handle(const Request& request) {
  const std::string_view target = request.target;
  if (!target.starts_with(kRoot)) return Error(404, {"Not Found"});
  const std::string_view name = target.substr(kRoot.size());
  const ApiHang hang = vm_->Hang();
  while (hang == ApiHang::kAlways || (hang == ApiHang::kInPause && name == "vm.pause")) ::pause();
  const bool get = request.method == "GET";
  const bool put = request.method == "PUT";
  const bool has_body = request.body.has_value();

  if (name == "vmm.ping") {
    if (!get) return BadRequest();
    return {200, json{{"build_version", kBuildVersion},
                      {"version", "53.0.0"},
                      {"pid", ::getpid()},
                      {"features", {"io_uring", "kvm"}}}
                     .dump()};
  }
  if (name == "vmm.shutdown") {
    if (!put) return BadRequest();
    ending_ = true;
    return {200, ""};
  }
  if (name == "vm.info")
    return get ? Told("The VM info is not available", vm_->Info()) : BadRequest();
  if (name == "vm.counters")
    return get ? Told("The VM info is not available", vm_->Counters()) : BadRequest();
  if (name == "vm.create") {
    if (!put) return BadRequest();
    if (!has_body) return {400, ""};
    const auto config = ParseConfig(*request.body);
    return config ? Done("The VM could not be created", vm_->Create(*config))
                  : BadJson(config.error());
  }
  for (const Action& action : kActions) {
    if (name == action.name)
      return put && !has_body ? Done(action.line, action.act(*vm_)) : BadRequest();
  }
  if (name == "vm.snapshot") return put && has_body ? Snapshot(*vm_, *request.body) : BadRequest();
  if (name == "vm.restore") return put && has_body ? Restore(*vm_, *request.body) : BadRequest();
  return Error(404, {"Not Found"});
}

}  // namespace dormouse::fake_vmm
