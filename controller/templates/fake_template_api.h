// An API server of SnapshotTemplates in memory, for tests, beside one of their sources: objects
// with versions, guarded writes, a cache that lags until it is told to catch up, and calls that
// fail on demand. Not thread-safe.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "controller/lifecycle/fake_sandbox_api.h"
#include "controller/stores.h"
#include "controller/templates/template_api.h"

namespace dormouse::controller {

class FakeTemplateApi : public TemplateApi {
 public:
  FakeTemplateApi(SnapshotTemplateStore& cache, FakeSandboxApi& sources, const Clock& clock)
      : cache_(cache), sources_(sources), clock_(clock) {
    cache_.EndReplace(kube::ResourceVersion("1"));
  }

  /// As a user or an agent changes it; the cache does not know yet. A new one is made now, from the
  /// source "s1".
  api::SnapshotTemplate& Edit(const std::string& name) {
    auto [found, is_new] = objects_.try_emplace(name);
    api::SnapshotTemplate& object = found->second;
    if (is_new) {
      object.meta.ns = "team";
      object.meta.name = name;
      object.meta.uid = "uid-" + name + "-" + std::to_string(++made_);
      object.meta.generation = 1;
      object.meta.creation_time = clock_.WallNow();
      object.source = "s1";
    }
    Bump(&object);
    return object;
  }
  void Remove(const std::string& name) {
    api::SnapshotTemplate& object = Edit(name);
    if (object.meta.finalizers.empty()) {
      objects_.erase(name);
      return;
    }
    object.meta.deletion_time = clock_.WallNow();
    ++object.meta.generation;
  }
  [[nodiscard]] const api::SnapshotTemplate* Find(const std::string& name) const {
    const auto found = objects_.find(name);
    return found == objects_.end() ? nullptr : &found->second;
  }

  /// The watches deliver all there is, and every cache subscriber hears of it.
  void CatchUp() {
    sources_.CatchUp();
    const kube::ResourceVersion now(std::to_string(version_));
    for (const auto& cached : cache_.List()) {
      const api::SnapshotTemplate* object = Find(cached->meta.name);
      if (object == nullptr || object->meta.uid != cached->meta.uid)
        cache_.Remove({cached->meta.key(), cached->meta.uid, now});
    }
    for (const auto& [name, object] : objects_) {
      const auto known = cache_.RefOf(object.meta.key());
      if (known && known->resource_version == object.meta.resource_version) continue;
      cache_.Upsert({object.meta.key(), object.meta.uid, object.meta.resource_version},
                    std::make_shared<const api::SnapshotTemplate>(object), false);
    }
    cache_.SetVersion(now);
  }

  Result<api::SnapshotTemplate> Read(const kube::ObjectKey& key) override {
    ++reads;
    const api::SnapshotTemplate* found = Find(key.name);
    if (found == nullptr) return Fail(ErrorCode::kNotFound, "no " + key.name);
    return *found;
  }
  Result<api::Sandbox> ReadSource(const kube::ObjectKey& key) override {
    return sources_.Read(key);
  }
  Result<kube::ObjectMeta> Claim(const kube::ObjectMeta& checked) override {
    DORMOUSE_ASSIGN(api::SnapshotTemplate* const object, Guard("claim", checked));
    if (!object->meta.HasFinalizer(api::kCleanupFinalizer))
      object->meta.finalizers.emplace_back(api::kCleanupFinalizer);
    object->meta.annotations.erase(api::kNodeIsGoneAnnotation);
    Bump(object);
    return object->meta;
  }
  Result<> RemoveFinalizer(const kube::ObjectMeta& checked) override {
    DORMOUSE_ASSIGN(api::SnapshotTemplate* const object, Guard("remove finalizer", checked));
    std::erase(object->meta.finalizers, api::kCleanupFinalizer);
    Bump(object);
    if (object->meta.deletion_time && object->meta.finalizers.empty()) objects_.erase(checked.name);
    return {};
  }
  Result<kube::ResourceVersion> ApplyStatus(const kube::ObjectMeta& checked,
                                            const api::SnapshotTemplateStatus& status) override {
    DORMOUSE_ASSIGN(api::SnapshotTemplate* const object, Guard("apply status of", checked));
    object->status.node_name = status.node_name;
    object->status.phase = status.phase;
    object->status.error = status.error;
    for (const api::Condition& condition : status.conditions) {
      api::SetCondition(&object->status.conditions, condition, condition.last_transition);
    }
    Bump(object);
    return object->meta.resource_version;
  }
  Result<kube::ResourceVersion> MarkSettled(const kube::ObjectMeta& checked) override {
    DORMOUSE_ASSIGN(api::SnapshotTemplate* const object, Guard("mark", checked));
    object->meta.annotations[api::kSourceSettledAnnotation] = checked.uid;
    Bump(object);
    return object->meta.resource_version;
  }
  Result<> Delete(const kube::ObjectMeta& checked) override {
    DORMOUSE_TRY(Guard("delete", checked));
    Remove(checked.name);
    return {};
  }
  Result<> SuspendSource(const kube::ObjectMeta& checked,
                         const std::string& template_uid) override {
    DORMOUSE_TRY(GuardSource("suspend source", checked));
    api::Sandbox& source = sources_.Edit(checked.name);
    source.spec.operating_mode = api::OperatingMode::kSuspended;
    source.meta.annotations[api::kSuspendedForAnnotation] = template_uid;
    return {};
  }
  Result<> DeleteSource(const kube::ObjectMeta& checked) override {
    DORMOUSE_TRY(GuardSource("delete source", checked));
    sources_.Delete(checked.name);
    return {};
  }
  void Record(const api::SnapshotTemplate& about, kube::EventType, std::string_view reason,
              std::string_view, const std::string&) override {
    events.push_back(std::string(reason) + " " + about.meta.name);
  }

  /// Writes that arrived, as "verb name", and events, as "reason name".
  std::vector<std::string> writes, events;
  int reads = 0;
  /// The next write fails with this before it has any effect.
  std::optional<ErrorCode> fail_next;

 private:
  void Bump(api::SnapshotTemplate* object) {
    object->meta.resource_version = kube::ResourceVersion(std::to_string(++version_));
  }
  Result<> Check(const std::string& verb, const kube::ObjectMeta& checked,
                 const kube::ObjectMeta* present) {
    if (fail_next) return Fail(*std::exchange(fail_next, std::nullopt), "asked to fail");
    if (present == nullptr) return Fail(ErrorCode::kNotFound, "no " + checked.name);
    if (present->uid != checked.uid || present->resource_version != checked.resource_version)
      return Fail(ErrorCode::kConflict, checked.name + " changed");
    writes.push_back(verb + " " + checked.name);
    return {};
  }
  Result<api::SnapshotTemplate*> Guard(const std::string& verb, const kube::ObjectMeta& checked) {
    const auto found = objects_.find(checked.name);
    const bool there = found != objects_.end();
    DORMOUSE_TRY(Check(verb, checked, there ? &found->second.meta : nullptr));
    return &found->second;
  }
  Result<> GuardSource(const std::string& verb, const kube::ObjectMeta& checked) {
    const api::Sandbox* source = sources_.Find(checked.name);
    return Check(verb, checked, source == nullptr ? nullptr : &source->meta);
  }

  SnapshotTemplateStore& cache_;
  FakeSandboxApi& sources_;
  const Clock& clock_;
  std::map<std::string, api::SnapshotTemplate> objects_;
  int version_ = 1, made_ = 0;
};

}  // namespace dormouse::controller
