#include "tests/fakes/fake-cloud-hypervisor/vm.h"

#include <fcntl.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "tests/fakes/fake-cloud-hypervisor/config.h"

namespace dormouse::fake_vmm {
namespace {

using nlohmann::json;

constexpr const char* kNotRunning = "VM is not running";
constexpr const char* kNotCreated = "VM is not created";
constexpr const char* kAlreadyCreated = "VM is already created";

const char* NameOf(State state) {
  switch (state) {
    case State::kCreated:
      return "Created";
    case State::kRunning:
      return "Running";
    case State::kPaused:
      return "Paused";
  }
  return "?";
}

std::string BadTransition(State from, State to) {
  return std::string("Invalid transition: InvalidStateTransition(") + NameOf(from) + ", " +
         NameOf(to) + ")";
}

Outcome<> Readable(const std::string& path, const char* what) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return Refuse({std::string("Cannot open ") + what + " file", OsCause(errno)});
  return {};
}

}  // namespace

Vm::Vm(EventMonitor* events, std::function<void(GuestWish)> wish)
    : events_(events), wish_(std::move(wish)) {}
Vm::~Vm() {
  Stop();
}

void Vm::Stop() {
  if (machine_ != nullptr) machine_->guest.reset();
  machine_.reset();
  serial_.reset();
}

Outcome<> Vm::OpenConsole() {
  if (serial_ != nullptr || TextAt(*config_, "serial", "mode") != "Socket") return {};
  auto port = SerialPort::Listen(TextAt(*config_, "serial", "socket"));
  if (!port) return tl::unexpected<Refusal>(port.error());
  serial_ = std::move(*port);
  return {};
}

Outcome<> Vm::Create(const json& config) {
  if (config_ != nullptr) return Refuse({kAlreadyCreated});
  // Kept even when the console fails, as the real one does.
  config_ = std::make_unique<json>(config);
  return OpenConsole();
}

Outcome<> Vm::Boot() {
  if (machine_ != nullptr) return Refuse({kAlreadyCreated});
  events_->Tell("vm", "booting");
  if (config_ == nullptr) return Refuse({"VM config is missing"}, 404);
  auto booted = BuildAndBoot();
  if (booted) events_->Tell("vm", "booted");
  return booted;
}

Outcome<> Vm::BuildAndBoot() {
  if (auto opened = OpenConsole(); !opened) return opened;
  if (auto valid = ValidateConfig(*config_); !valid) return valid;
  const uint64_t size = (*config_)["memory"].value("size", uint64_t{0});
  if (size == 0) return Refuse({"Memory manager error", "No memory zones found"});
  auto memory = GuestMemory::Allocate(RangesOf(size));
  if (!memory) return tl::unexpected<Refusal>(memory.error());
  if (serial_ != nullptr) serial_->RemoveAtEnd();
  auto devices = Devices::Open(*config_);
  if (!devices) return tl::unexpected<Refusal>(devices.error());
  if (const std::string initramfs = TextAt(*config_, "payload", "initramfs"); !initramfs.empty()) {
    if (auto readable = Readable(initramfs, "initramfs"); !readable) return readable;
  }

  // From here on there is a VM, whatever becomes of its boot: it must be deleted before the next
  // try.
  machine_ = std::make_unique<Machine>();
  machine_->devices.emplace(std::move(*devices));
  machine_->memory = std::move(*memory);
  if (auto locked = machine_->devices->LockDisks(); !locked) return locked;
  if (auto readable = Readable(TextAt(*config_, "payload", "kernel"), "kernel"); !readable)
    return readable;
  StartGuest(*machine_, /*booted=*/true);
  machine_->state = State::kRunning;
  machine_->guest->Thaw();
  return {};
}

void Vm::StartGuest(Machine& machine, bool booted) {
  Guest::Parts parts;
  parts.memory = machine.memory.get();
  parts.serial = serial_.get();
  parts.events = events_;
  parts.vsock = machine.devices->TakeVsock();
  parts.knobs =
      ReadKnobs(TextAt(*config_, "payload", "cmdline"), TextAt(*config_, "vsock", "socket"));
  if (rebooted_) parts.knobs.reboot_ms.reset();
  parts.wish = wish_;
  for (const char* key : {"disks", "net"}) {
    if (!config_->contains(key)) continue;
    for (const json& device : (*config_)[key])
      events_->TellDevice("activated", device.value("id", "_device"));
  }
  machine.guest = std::make_unique<Guest>(std::move(parts), booted);
  // After what the boot touches.
  if (booted) machine.memory->WriteCommandLine(TextAt(*config_, "payload", "cmdline"));
}

ApiHang Vm::Hang() const {
  if (config_ == nullptr) return ApiHang::kNever;
  return ReadKnobs(TextAt(*config_, "payload", "cmdline"), TextAt(*config_, "vsock", "socket")).api;
}

Outcome<> Vm::Pause() {
  if (machine_ == nullptr) return Refuse({kNotRunning});
  events_->Tell("vm", "pausing");
  if (machine_->state == State::kPaused) {
    return Refuse({"Cannot pause VM", "Failed to pause migratable component",
                   BadTransition(machine_->state, State::kPaused)});
  }
  if (machine_->guest != nullptr) machine_->guest->Freeze();
  machine_->state = State::kPaused;
  events_->Tell("vm", "paused");
  return {};
}

Outcome<> Vm::Resume() {
  if (machine_ == nullptr) return Refuse({kNotRunning});
  events_->Tell("vm", "resuming");
  if (machine_->state == State::kRunning) {
    return Refuse({"Cannot resume VM", "Failed to resume migratable component",
                   BadTransition(machine_->state, State::kRunning)});
  }
  if (machine_->guest != nullptr) machine_->guest->Thaw();
  machine_->state = State::kRunning;
  events_->Tell("vm", "resumed");
  return {};
}

Outcome<> Vm::Shutdown() {
  if (machine_ == nullptr) return Refuse({kNotRunning});
  Stop();
  events_->Tell("vm", "shutdown");
  return {};
}

Outcome<> Vm::Delete() {
  if (config_ == nullptr) return {};
  if (machine_ != nullptr) (void)Shutdown();
  serial_.reset();
  config_.reset();
  events_->Tell("vm", "deleted");
  return {};
}

Outcome<> Vm::Reboot() {
  events_->Tell("vm", "rebooting");
  if (machine_ == nullptr) return Refuse({kNotCreated}, 404);
  rebooted_ = true;
  Stop();
  auto booted = BuildAndBoot();
  if (booted) events_->Tell("vm", "rebooted");
  return booted;
}

Outcome<std::string> Vm::Info() const {
  if (config_ == nullptr) return Refuse({kNotCreated}, 404);
  const State state = machine_ != nullptr ? machine_->state : State::kCreated;
  const uint64_t bytes = machine_ != nullptr ? machine_->memory->bytes()
                                             : (*config_)["memory"].value("size", uint64_t{0});
  return json{{"config", *config_}, {"state", NameOf(state)}, {"memory_actual_size", bytes}}.dump();
}

Outcome<std::string> Vm::Counters() const {
  if (machine_ == nullptr) return Refuse({kNotRunning});
  json counters = json::object();
  if (config_->contains("disks")) {
    for (const json& disk : (*config_)["disks"]) {
      counters[disk.value("id", "_disk0")] = {
          {"read_bytes", 0}, {"read_ops", 0}, {"write_bytes", 0}, {"write_ops", 0}};
    }
  }
  if (config_->contains("net")) {
    for (const json& net : (*config_)["net"]) {
      counters[net.value("id", "_net1")] = {
          {"rx_bytes", 0}, {"rx_frames", 0}, {"tx_bytes", 0}, {"tx_frames", 0}};
    }
  }
  return counters.dump();
}

Outcome<> Vm::Snapshot(const std::string& url) {
  if (machine_ == nullptr) return Refuse({kNotRunning});
  events_->Tell("vm", "snapshotting");
  if (machine_->state != State::kPaused) {
    return Refuse({"Cannot snapshot VM", "Failed to snapshot migratable component",
                   "Trying to snapshot while VM is running"});
  }
  // Before memory is written, as in the real one.
  events_->Tell("vm", "snapshotted");
  auto directory = DirectoryOf(url);
  if (!directory)
    return Under({"Cannot send VM snapshot"},
                 Outcome<>(tl::unexpected<Refusal>(directory.error())));
  auto sent =
      WriteConfigAndState(*directory, *config_, *machine_->memory, machine_->devices->disks());
  if (sent) sent = machine_->memory->Write(*directory + "/memory-ranges");
  return Under({"Cannot send VM snapshot", "Failed to send migratable component snapshot"},
               std::move(sent));
}

Outcome<> Vm::Restore(const std::string& url, bool prefault, const std::string& mode, bool resume) {
  if (config_ != nullptr) return Refuse({kAlreadyCreated});
  auto directory = DirectoryOf(url);
  if (!directory)
    return Under({"Cannot restore VM"}, Outcome<>(tl::unexpected<Refusal>(directory.error())));
  auto config = ReadSnapshotConfig(*directory);
  if (!config) {
    return Under({"Cannot restore VM", "Failed to receive migratable component snapshot"},
                 Outcome<>(tl::unexpected<Refusal>(config.error())));
  }
  if (prefault && mode == "OnDemand") {
    return Refuse({"Failed to validate config",
                   "'prefault' cannot be combined with 'memory_restore_mode=ondemand'"});
  }
  config_ = std::make_unique<json>(std::move(*config));
  auto restored = RestoreMachine(*directory);
  if (!restored) {
    // The VMM lives on, without a VM.
    Stop();
    config_.reset();
    return restored;
  }
  return resume ? Resume() : Outcome<>();
}

Outcome<> Vm::RestoreMachine(const std::string& directory) {
  auto saved = ReadSnapshotState(directory);
  if (!saved) {
    return Under({"Cannot restore VM", "Failed to receive migratable component snapshot"},
                 Outcome<>(tl::unexpected<Refusal>(saved.error())));
  }
  if (auto opened = OpenConsole(); !opened) return opened;

  const json& memory_config = (*config_)["memory"];
  const json* zone = nullptr;
  if (const auto zones = memory_config.find("zones"); zones != memory_config.end() &&
                                                      zones->is_array() && !zones->empty() &&
                                                      (*zones)[0].contains("file")) {
    zone = &(*zones)[0];
  }
  auto memory = zone != nullptr
                    ? GuestMemory::MapFile(saved->mappings, (*zone)["file"].get<std::string>())
                    : GuestMemory::Allocate(saved->mappings);
  if (!memory) return tl::unexpected<Refusal>(memory.error());
  if (!saved->to_copy.empty()) {
    if (auto filled = (*memory)->Fill(directory + "/memory-ranges", saved->to_copy); !filled)
      return filled;
  }
  if (serial_ != nullptr) serial_->RemoveAtEnd();
  auto devices = Devices::Open(*config_);
  if (!devices) return tl::unexpected<Refusal>(devices.error());
  if (const std::string initramfs = TextAt(*config_, "payload", "initramfs"); !initramfs.empty()) {
    if (auto readable = Readable(initramfs, "initramfs"); !readable) return readable;
  }

  machine_ = std::make_unique<Machine>();
  machine_->devices.emplace(std::move(*devices));
  machine_->memory = std::move(*memory);
  machine_->state = State::kPaused;
  events_->Tell("vm", "restoring");
  if (auto locked = machine_->devices->LockDisks(); !locked) return locked;
  StartGuest(*machine_, /*booted=*/false);
  events_->Tell("vm", "restored");
  return {};
}

Outcome<> Vm::Poke() const {
  if (machine_ == nullptr) return Refuse({kNotRunning});
  return {};
}

}  // namespace dormouse::fake_vmm
