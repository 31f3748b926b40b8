// What the tests of this room share: a view that a test fills, and an agent's socket in a directory
// of its own.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "node-agent/host/test_support.h"
#include "node-agent/sandbox/view.h"
#include "node-agent/serve/control_server.h"

namespace dormouse {

/// Holds default/web and team-a/idle; the first runs, and its guest is at `vsock_socket`.
class FakeView : public AgentView {
 public:
  std::vector<SandboxSummary> List() const override {
    SandboxSummary web;
    web.uid = "0b0e6b1c-0000-4000-8000-000000000001";
    web.ns = "default";
    web.name = "web";
    web.phase = "Running";
    web.running = true;
    web.vcpus = 1;
    web.memory_bytes = 512 << 20;
    SandboxSummary idle;
    idle.uid = "0b0e6b1c-0000-4000-8000-000000000002";
    idle.ns = "team-a";
    idle.name = "idle";
    idle.phase = "Finished";
    std::vector<SandboxSummary> all = {web, idle};
    for (size_t i = 0; i < more; ++i) {
      idle.name = "more-" + std::to_string(i);
      all.push_back(idle);
    }
    return all;
  }
  Result<std::string> Show(const kube::ObjectKey& key) const override {
    if (!Has(key)) return Missing(key);
    return R"({"record":{"name":")" + key.name + R"("},"plan":"-> Running"})";
  }
  Result<GuestAccess> Guest(const kube::ObjectKey& key) const override {
    if (!Has(key)) return Missing(key);
    if (key.name != "web")
      return Fail(ErrorCode::kUnavailable, "sandbox " + key.ToString() + " does not run");
    return GuestAccess{"0b0e6b1c-0000-4000-8000-000000000001", host::OwnSocket(vsock_socket)};
  }
  Result<std::string> ConsoleTail(const kube::ObjectKey& key, size_t lines) const override {
    if (!Has(key)) return Missing(key);
    return "last " + std::to_string(lines) + " lines";
  }
  Result<std::vector<Leak>> Sweep(bool remove) override {
    if (remove) leaks.clear();
    return leaks;
  }

  std::string vsock_socket;
  std::vector<Leak> leaks;
  size_t more = 0;

 private:
  [[nodiscard]] bool Has(const kube::ObjectKey& key) const {
    return key.ToString() == "default/web" || key.ToString() == "team-a/idle";
  }
  static tl::unexpected<Error> Missing(const kube::ObjectKey& key) {
    return Fail(ErrorCode::kNotFound, "no " + key.ToString());
  }
};

class ServeTest : public testing::Test {
 protected:
  ServeTest() {
    options_.paths.state = directory_.path();
    options_.paths.run = directory_.path();
    options_.allowed_uid = ::geteuid();
  }
  ~ServeTest() override { server_.reset(); }
  void StartServer() {
    auto server = ControlServer::Listen(view_, options_);
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
    server_->Start();
  }
  [[nodiscard]] std::string socket() const { return options_.paths.ControlSocket(); }

  const host::ScratchDirectory directory_;
  FakeView view_;
  ControlServerOptions options_;
  std::unique_ptr<ControlServer> server_;
};

}  // namespace dormouse
