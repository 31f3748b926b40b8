// An API server of Sandboxes in memory, for tests: objects with versions, guarded writes, a cache
// that lags until it is told to catch up, and calls that fail on demand. Not thread-safe.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "controller/lifecycle/sandbox_api.h"
#include "controller/stores.h"

namespace dormouse::controller {

class FakeSandboxApi : public SandboxApi {
 public:
  explicit FakeSandboxApi(SandboxStore& cache) : cache_(cache) {
    cache_.EndReplace(kube::ResourceVersion("1"));
  }

  /// As a user or an agent changes it; the cache does not know yet.
  api::Sandbox& Edit(const std::string& name) {
    auto [found, is_new] = objects_.try_emplace(name);
    api::Sandbox& sandbox = found->second;
    if (is_new) {
      sandbox.meta.ns = "team";
      sandbox.meta.name = name;
      sandbox.meta.uid = "uid-" + name + "-" + std::to_string(++made_);
      sandbox.meta.generation = 1;
      sandbox.meta.creation_time = WallTime{std::chrono::seconds(made_)};
      sandbox.spec.image = "debian-12";
    }
    Bump(&sandbox);
    return sandbox;
  }
  void Delete(const std::string& name) {
    api::Sandbox& sandbox = Edit(name);
    if (sandbox.meta.finalizers.empty()) {
      objects_.erase(name);
      return;
    }
    sandbox.meta.deletion_time = WallTime{};
    ++sandbox.meta.generation;
  }
  [[nodiscard]] const api::Sandbox* Find(const std::string& name) const {
    const auto found = objects_.find(name);
    return found == objects_.end() ? nullptr : &found->second;
  }

  /// The watch delivers all there is, and every cache subscriber hears of it.
  void CatchUp() {
    for (const auto& cached : cache_.List()) {
      const auto found = objects_.find(cached->meta.name);
      if (found == objects_.end() || found->second.meta.uid != cached->meta.uid) {
        cache_.Remove({cached->meta.key(), cached->meta.uid,
                       kube::ResourceVersion(std::to_string(version_))});
      }
    }
    std::vector<const api::Sandbox*> changed;
    for (const auto& [name, sandbox] : objects_) {
      const auto known = cache_.RefOf(sandbox.meta.key());
      if (!known || known->resource_version != sandbox.meta.resource_version)
        changed.push_back(&sandbox);
    }
    std::sort(changed.begin(), changed.end(), [](const auto* left, const auto* right) {
      return std::stoi(left->meta.resource_version.text()) <
             std::stoi(right->meta.resource_version.text());
    });
    for (const api::Sandbox* sandbox : changed) {
      cache_.Upsert({sandbox->meta.key(), sandbox->meta.uid, sandbox->meta.resource_version},
                    std::make_shared<const api::Sandbox>(*sandbox), false);
    }
    cache_.SetVersion(kube::ResourceVersion(std::to_string(version_)));
  }

  Result<api::Sandbox> Read(const kube::ObjectKey& key) override {
    ++reads;
    const api::Sandbox* found = Find(key.name);
    if (found == nullptr) return Fail(ErrorCode::kNotFound, "no " + key.name);
    return *found;
  }
  Result<kube::ObjectMeta> Claim(const kube::ObjectMeta& checked) override {
    DORMOUSE_ASSIGN(api::Sandbox* const sandbox, Guard("claim", checked));
    if (!sandbox->meta.HasFinalizer(api::kCleanupFinalizer))
      sandbox->meta.finalizers.emplace_back(api::kCleanupFinalizer);
    sandbox->meta.annotations.erase(api::kNodeIsGoneAnnotation);
    Bump(sandbox);
    return sandbox->meta;
  }
  Result<> RemoveFinalizer(const kube::ObjectMeta& checked) override {
    DORMOUSE_ASSIGN(api::Sandbox* const sandbox, Guard("remove finalizer", checked));
    std::erase(sandbox->meta.finalizers, api::kCleanupFinalizer);
    Bump(sandbox);
    if (sandbox->meta.deletion_time && sandbox->meta.finalizers.empty())
      objects_.erase(checked.name);
    return {};
  }
  Result<kube::ResourceVersion> ApplyStatus(const kube::ObjectMeta& checked,
                                            const api::SandboxStatus& status) override {
    DORMOUSE_ASSIGN(api::Sandbox* const sandbox, Guard("apply status of", checked));
    sandbox->status.node_name = status.node_name;
    if (!status.phase.empty()) sandbox->status.phase = status.phase;
    for (const api::Condition& condition : status.conditions) {
      api::SetCondition(&sandbox->status.conditions, condition, condition.last_transition);
    }
    Bump(sandbox);
    return sandbox->meta.resource_version;
  }
  Result<kube::ResourceVersion> ReplaceStatus(const kube::ObjectMeta& checked,
                                              const api::SandboxStatus& status) override {
    DORMOUSE_ASSIGN(api::Sandbox* const sandbox, Guard("replace status of", checked));
    sandbox->status = status;
    Bump(sandbox);
    return sandbox->meta.resource_version;
  }
  Result<> Delete(const kube::ObjectMeta& checked) override {
    DORMOUSE_TRY(Guard("delete", checked));
    Delete(checked.name);
    return {};
  }
  Result<kube::ResourceVersion> SetMode(const kube::ObjectMeta& checked, api::OperatingMode mode,
                                        const std::string& mark) override {
    DORMOUSE_ASSIGN(api::Sandbox* const sandbox, Guard(api::OperatingModeName(mode), checked));
    sandbox->spec.operating_mode = mode;
    ++sandbox->meta.generation;
    sandbox->meta.annotations.erase(api::kIdleSuspendAnnotation);
    if (!mark.empty()) sandbox->meta.annotations[api::kIdleSuspendAnnotation] = mark;
    Bump(sandbox);
    return sandbox->meta.resource_version;
  }
  void Record(const api::Sandbox& about, kube::EventType, std::string_view reason, std::string_view,
              const std::string&) override {
    events.push_back(std::string(reason) + " " + about.meta.name);
  }

  /// Writes that arrived, as "verb name", and events, as "reason name".
  std::vector<std::string> writes, events;
  int reads = 0;
  /// The next write fails with this before it has any effect.
  std::optional<ErrorCode> fail_next;

 private:
  void Bump(api::Sandbox* sandbox) {
    sandbox->meta.resource_version = kube::ResourceVersion(std::to_string(++version_));
  }
  Result<api::Sandbox*> Guard(const std::string& verb, const kube::ObjectMeta& checked) {
    if (fail_next) return Fail(*std::exchange(fail_next, std::nullopt), "asked to fail");
    const auto found = objects_.find(checked.name);
    if (found == objects_.end()) return Fail(ErrorCode::kNotFound, "no " + checked.name);
    if (found->second.meta.resource_version != checked.resource_version ||
        found->second.meta.uid != checked.uid) {
      return Fail(ErrorCode::kConflict, checked.name + " changed");
    }
    writes.push_back(verb + " " + checked.name);
    return &found->second;
  }

  SandboxStore& cache_;
  std::map<std::string, api::Sandbox> objects_;
  int version_ = 1, made_ = 0;
};

}  // namespace dormouse::controller
