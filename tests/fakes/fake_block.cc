#include "tests/fakes/fake_block.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>

#include "node-agent/host/sparse_files.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"

namespace dormouse::fakes {

using host::DeviceNumber;
using nlohmann::json;

namespace {

constexpr uint32_t kDmMajor = 253;
constexpr uint32_t kLoopMajor = 7;
constexpr size_t kLargestState = 64 << 20;

DeviceNumber NumberOf(const json& device) {
  return {device.at("major").get<uint32_t>(), device.at("minor").get<uint32_t>()};
}

}  // namespace

// {"dm": {name: {...}}, "loops": {"0": {...}}}, read and written whole under the lock.
struct FakeBlock::State {
  std::mutex mutex;
  std::string file;
  json document = json::object();

  void Load() {
    document = {{"dm", json::object()}, {"loops", json::object()}};
    if (auto text = ReadFile(file, kLargestState)) document = json::parse(*text);
  }

  Result<> Save() {
    const std::string temporary = file + ".new";
    DORMOUSE_TRY(RemoveFile(temporary));
    DORMOUSE_ASSIGN(const UniqueFd fd, host::OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC));
    DORMOUSE_TRY(WriteAll(fd.get(), document.dump()));
    if (::rename(temporary.c_str(), file.c_str()) != 0) return FailErrno("rename " + temporary);
    return {};
  }

  int UsersOf(DeviceNumber number) {
    int users = 0;
    for (const auto& [name, device] : document["dm"].items()) {
      for (const auto& used : device["uses"])
        users += used.get<std::string>() == number.ToString() ? 1 : 0;
    }
    return users;
  }
};

namespace {

class FakeDeviceMapper : public host::DeviceMapper {
 public:
  template <typename S>
  explicit FakeDeviceMapper(S* state)
      : mutex_(state->mutex),
        devices_(state->document["dm"]),
        save_([state] { return state->Save(); }),
        users_([state](DeviceNumber number) { return state->UsersOf(number); }) {}

  Result<DeviceNumber> CreateSnapshot(const host::DmName& name,
                                      const host::SnapshotTable& table) override {
    const std::string store = table.store.ToString();
    const std::lock_guard lock(mutex_);
    if (!devices_.contains(name.str())) {
      for (const auto& [other, device] : devices_.items()) {
        if (device["store"] == store)
          return Fail(ErrorCode::kBusy, name.str() + ": its store is in use by " + other);
      }
    }
    json device = {{"sectors", table.sectors},
                   {"store", store},
                   {"uses", {table.origin.ToString(), store}},
                   {"status", "16/" + std::to_string(table.sectors) + " 16"}};
    return Create("create-snapshot", name, std::move(device));
  }

  Result<DeviceNumber> CreateLinearZero(const host::DmName& name,
                                        const host::LinearZeroTable& table) override {
    const std::lock_guard lock(mutex_);
    return Create("create-linear-zero", name,
                  {{"sectors", table.sectors},
                   {"store", ""},
                   {"uses", {table.base.ToString()}},
                   {"status", ""}});
  }

  Result<> Remove(const host::DmName& name) override {
    DORMOUSE_TRY(failpoint::Hit("fake.dm.remove", name.str()));
    const std::lock_guard lock(mutex_);
    if (!devices_.contains(name.str())) return {};
    const json& device = devices_[name.str()];
    if (device["open"].get<bool>() || users_(NumberOf(device)) > 0)
      return Fail(ErrorCode::kBusy, "remove " + name.str() + ": EBUSY");
    devices_.erase(name.str());
    return save_();
  }

  Result<> Suspend(const host::DmName& name) override {
    return SetSuspended("suspend", name, true);
  }
  Result<> Resume(const host::DmName& name) override { return SetSuspended("resume", name, false); }

  Result<host::DmDevice> Find(const host::DmName& name) override {
    const std::lock_guard lock(mutex_);
    if (!devices_.contains(name.str()))
      return Fail(ErrorCode::kNotFound, "find " + name.str() + ": ENXIO");
    return DeviceFrom(name.str());
  }

  Result<host::SnapshotStatus> Status(const host::DmName& name) override {
    DORMOUSE_TRY(failpoint::Hit("fake.dm.status", name.str()));
    const std::lock_guard lock(mutex_);
    if (!devices_.contains(name.str()))
      return Fail(ErrorCode::kNotFound, "status of " + name.str() + ": ENXIO");
    return host::ParseSnapshotStatus(devices_[name.str()]["status"].get<std::string>());
  }

  Result<std::vector<host::DmDevice>> List(std::string_view prefix) override {
    const std::lock_guard lock(mutex_);
    std::vector<host::DmDevice> found;
    for (const auto& [name, device] : devices_.items()) {
      if (name.starts_with(prefix)) found.push_back(DeviceFrom(name));
    }
    return found;
  }

  Result<> MakeNode(const host::DmName& name, const std::string& path, uid_t owner) override {
    DORMOUSE_TRY(failpoint::Hit("fake.dm.make-node", name.str()));
    const std::lock_guard lock(mutex_);
    if (!devices_.contains(name.str()))
      return Fail(ErrorCode::kNotFound, "node of " + name.str() + ": ENXIO");
    if (const auto slash = path.rfind('/'); slash != std::string::npos && slash > 0) {
      DORMOUSE_TRY(MakeDirectories(path.substr(0, slash), 0755));
    }
    DORMOUSE_ASSIGN(const UniqueFd file, host::OpenFile(path, O_RDWR | O_CREAT, 0600));
    const auto bytes = devices_[name.str()]["sectors"].get<uint64_t>() * host::kSectorBytes;
    if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return FailErrno("size " + path);
    if (::fchown(file.get(), owner, owner) != 0) return FailErrno("chown " + path);
    return {};
  }

 private:
  Result<DeviceNumber> Create(const std::string& verb, const host::DmName& name, json device) {
    DORMOUSE_TRY(failpoint::Hit("fake.dm." + verb, name.str()));
    if (devices_.contains(name.str())) {
      const json& there = devices_[name.str()];
      if (there["uses"] == device["uses"] && there["sectors"] == device["sectors"])
        return NumberOf(there);
      return Fail(ErrorCode::kAlreadyExists,
                  "create " + name.str() + ": a device of that name has another table");
    }
    uint32_t minor = 0;
    for (const auto& [other, there] : devices_.items())
      minor = std::max(minor, NumberOf(there).minor + 1);
    device["major"] = kDmMajor;
    device["minor"] = minor;
    device["open"] = false;
    device["suspended"] = false;
    devices_[name.str()] = std::move(device);
    DORMOUSE_TRY(save_());
    return DeviceNumber{kDmMajor, minor};
  }

  Result<> SetSuspended(const std::string& verb, const host::DmName& name, bool suspended) {
    DORMOUSE_TRY(failpoint::Hit("fake.dm." + verb, name.str()));
    const std::lock_guard lock(mutex_);
    if (!devices_.contains(name.str()))
      return Fail(ErrorCode::kNotFound, verb + " " + name.str() + ": ENXIO");
    devices_[name.str()]["suspended"] = suspended;
    return save_();
  }

  host::DmDevice DeviceFrom(const std::string& name) {
    const json& device = devices_[name];
    host::DmDevice found;
    found.name = name;
    found.number = NumberOf(device);
    found.open_count =
        static_cast<uint32_t>(users_(found.number) + (device["open"].get<bool>() ? 1 : 0));
    found.suspended = device["suspended"].get<bool>();
    found.active = true;
    return found;
  }

  std::mutex& mutex_;
  json& devices_;
  const std::function<Result<>()> save_;
  const std::function<int(DeviceNumber)> users_;
};

class FakeLoopDevices : public host::LoopDevices {
 public:
  template <typename S>
  explicit FakeLoopDevices(S* state)
      : mutex_(state->mutex),
        loops_(state->document["loops"]),
        save_([state] { return state->Save(); }),
        users_([state](DeviceNumber number) { return state->UsersOf(number); }) {}

  Result<host::LoopDevice> Attach(const std::string& file,
                                  const host::LoopOptions& options) override {
    DORMOUSE_TRY(failpoint::Hit("fake.loop.attach", options.tag));
    DORMOUSE_ASSIGN(const auto existing, FindByFile(file));
    if (existing) {
      if (existing->tag == options.tag && existing->read_only == options.read_only)
        return *existing;
      return Fail(ErrorCode::kAlreadyExists,
                  "attach " + file + ": " + existing->tag + " is over it already");
    }
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) return FailErrno("stat " + file);
    const std::lock_guard lock(mutex_);
    int index = 0;
    while (loops_.contains(std::to_string(index))) ++index;
    loops_[std::to_string(index)] = {{"tag", options.tag},
                                     {"read_only", options.read_only},
                                     {"device", status.st_dev},
                                     {"inode", status.st_ino}};
    DORMOUSE_TRY(save_());
    return LoopFrom(index);
  }

  Result<std::optional<host::LoopDevice>> FindByFile(const std::string& file) override {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) return FailErrno("stat " + file);
    return FindIf([&](const auto& loop) {
      return loop.file_device == status.st_dev && loop.file_inode == status.st_ino;
    });
  }

  Result<std::optional<host::LoopDevice>> FindByTag(std::string_view tag) override {
    return FindIf([&](const auto& loop) { return loop.tag == tag; });
  }

  Result<> Detach(const host::LoopDevice& loop) override {
    DORMOUSE_TRY(failpoint::Hit("fake.loop.detach", loop.tag));
    const std::lock_guard lock(mutex_);
    if (users_(loop.number) > 0)
      return Fail(ErrorCode::kBusy, "detach " + loop.tag + ": a device stands on it");
    if (loops_.erase(std::to_string(loop.index)) == 0) return {};
    return save_();
  }

  Result<int> Holders(const host::LoopDevice& loop) override {
    const std::lock_guard lock(mutex_);
    return users_(loop.number);
  }

  Result<std::vector<host::LoopDevice>> List(std::string_view prefix) override {
    const std::lock_guard lock(mutex_);
    std::vector<host::LoopDevice> found;
    for (const auto& [index, loop] : loops_.items()) {
      if (loop["tag"].get<std::string>().starts_with(prefix))
        found.push_back(LoopFrom(std::stoi(index)));
    }
    return found;
  }

 private:
  template <typename Predicate>
  Result<std::optional<host::LoopDevice>> FindIf(Predicate matches) {
    DORMOUSE_ASSIGN(const auto all, List(""));
    for (const auto& loop : all) {
      if (matches(loop)) return loop;
    }
    return std::nullopt;
  }

  host::LoopDevice LoopFrom(int index) {
    const json& loop = loops_[std::to_string(index)];
    host::LoopDevice found;
    found.index = index;
    found.number = {kLoopMajor, static_cast<uint32_t>(index)};
    found.tag = loop["tag"].get<std::string>();
    found.file_device = loop["device"].get<dev_t>();
    found.file_inode = loop["inode"].get<ino_t>();
    found.read_only = loop["read_only"].get<bool>();
    return found;
  }

  std::mutex& mutex_;
  json& loops_;
  const std::function<Result<>()> save_;
  const std::function<int(DeviceNumber)> users_;
};

}  // namespace

FakeBlock::FakeBlock(std::string directory) : state_(std::make_unique<State>()) {
  (void)MakeDirectories(directory);
  state_->file = directory + "/block.json";
  state_->Load();
  dm_ = std::make_unique<FakeDeviceMapper>(state_.get());
  loops_ = std::make_unique<FakeLoopDevices>(state_.get());
}

FakeBlock::~FakeBlock() = default;

host::DeviceMapper& FakeBlock::dm() {
  return *dm_;
}
host::LoopDevices& FakeBlock::loops() {
  return *loops_;
}

Result<> FakeBlock::SetStatus(const std::string& name, const std::string& kernel_words) {
  const std::lock_guard lock(state_->mutex);
  state_->document["dm"][name]["status"] = kernel_words;
  return state_->Save();
}

Result<> FakeBlock::SetOpen(const std::string& name, bool open) {
  const std::lock_guard lock(state_->mutex);
  state_->document["dm"][name]["open"] = open;
  return state_->Save();
}

}  // namespace dormouse::fakes
