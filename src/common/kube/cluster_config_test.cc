#include "src/common/kube/cluster_config.h"

#include <gmock/gmock.h>
#include <stdlib.h>

#include "src/common/base/files.h"

namespace dormouse::kube {
namespace {

using testing::HasSubstr;

constexpr char kConfig[] = R"(
apiVersion: v1
kind: Config
current-context: prod
clusters:
- name: c1
  cluster: {server: "https://10.0.0.1:6443", certificate-authority: pki/ca.crt}
- name: c2
  cluster: {server: "https://example:6443", certificate-authority-data: "aGVsbG8=", tls-server-name: kubernetes}
contexts:
- name: prod
  context: {cluster: c1, user: file, namespace: team}
- name: data
  context: {cluster: c2, user: cert}
- name: plugin
  context: {cluster: c2, user: exec}
- name: dangling
  context: {cluster: c3, user: file}
users:
- name: file
  user: {tokenFile: token}
- name: cert
  user: {client-certificate-data: "Y2VydA==", client-key-data: "a2V5"}
- name: exec
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: ./login
      args: ["--cluster", "a b"]
      env: [{name: X, value: "1"}]
      interactiveMode: IfAvailable
)";

TEST(KubeconfigTest, PathsAreRelativeToTheirFile) {
  const auto config = ParseKubeconfig(kConfig, "/home/u/.kube");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->server, "https://10.0.0.1:6443");
  EXPECT_EQ(config->ca.file, "/home/u/.kube/pki/ca.crt");
  EXPECT_EQ(config->token_file, "/home/u/.kube/token");
  EXPECT_EQ(config->ns, "team");
}

TEST(KubeconfigTest, DataIsDecoded) {
  const auto config = ParseKubeconfig(kConfig, "/x", "data");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->ca.data, "hello");
  EXPECT_EQ(config->client_certificate.data, "cert");
  EXPECT_EQ(config->client_key.data, "key");
  EXPECT_EQ(config->tls_server_name, "kubernetes");
  EXPECT_EQ(config->ns, "default");
}

TEST(KubeconfigTest, ExecPluginsKeepTheirWords) {
  const auto config = ParseKubeconfig(kConfig, "/x", "plugin");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->exec->command, "/x/./login");
  EXPECT_THAT(config->exec->args, testing::ElementsAre("--cluster", "a b"));
  EXPECT_THAT(config->exec->env, testing::ElementsAre(testing::Pair("X", "1")));
}

TEST(KubeconfigTest, WhatIsWrongIsNamed) {
  const auto message = [](const std::string& text, const std::string& context = "") {
    const auto config = ParseKubeconfig(text, "/x", context);
    EXPECT_FALSE(config) << text;
    return config ? "" : config.error().message();
  };
  EXPECT_THAT(message(kConfig, "nowhere"), HasSubstr("context 'nowhere' does not exist"));
  EXPECT_THAT(message(kConfig, "dangling"), HasSubstr("cluster 'c3' does not exist"));
  EXPECT_THAT(message("clusters: {"), HasSubstr("kubeconfig: "));
  EXPECT_THAT(message("- a"), HasSubstr("not a map"));
  EXPECT_THAT(message(""), HasSubstr("no current-context"));
  const auto with = [](const std::string& cluster, const std::string& user) {
    return "current-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n"
           "clusters: [{name: x, cluster: {" +
           cluster + "}}]\nusers: [{name: x, user: {" + user + "}}]\n";
  };
  const std::string server = "server: 'https://a'";
  EXPECT_THAT(message(with("server: 'a:6443'", "")), HasSubstr("'a:6443' is not an http"));
  EXPECT_THAT(message(with(server + ", proxy-url: 'http://p'", "")),
              HasSubstr("proxy-url is not supported"));
  EXPECT_THAT(message(with(server, "username: u, password: p")),
              HasSubstr("username is not supported"));
  EXPECT_THAT(message(with(server, "as: root")), HasSubstr("as is not supported"));
  EXPECT_THAT(message(with(server, "auth-provider: {name: gcp}")),
              HasSubstr("auth-provider is not"));
  EXPECT_THAT(message(with(server, "client-certificate: c")), HasSubstr("go together"));
  EXPECT_THAT(message(with(server + ", certificate-authority-data: '!!'", "")),
              HasSubstr("not base64"));
  EXPECT_THAT(message(with(server, "exec: {apiVersion: v9, command: c}")),
              HasSubstr("exec apiVersion 'v9'"));
}

class KubeconfigFilesTest : public testing::Test {
 protected:
  KubeconfigFilesTest() {
    char name[] = "/tmp/dormouse-kubeconfig-test-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~KubeconfigFilesTest() override { EXPECT_TRUE(RemoveTree(directory_)); }
  std::string Write(const std::string& name, const std::string& text) {
    EXPECT_TRUE(MakeDirectories(directory_ + "/d" + name));
    const std::string path = directory_ + "/d" + name + "/config";
    EXPECT_TRUE(WriteFileAtomically(path, text));
    return path;
  }
  std::string directory_;
};

TEST_F(KubeconfigFilesTest, TheFirstFileWinsPerName) {
  const auto a = Write("a",
                       "current-context: x\n"
                       "clusters: [{name: c, cluster: {server: 'https://first'}}]\n");
  const auto b = Write("b",
                       "current-context: y\n"
                       "clusters: [{name: c, cluster: {server: 'https://second'}}]\n"
                       "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
                       "users: [{name: u, user: {tokenFile: t}}]\n");
  const auto config = LoadKubeconfigs({directory_ + "/missing", a, b});
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->server, "https://first");
  EXPECT_EQ(config->token_file, directory_ + "/db/t") << "relative to the file it stands in";
}

TEST_F(KubeconfigFilesTest, NoFileAtAllIsNotFound) {
  EXPECT_EQ(LoadKubeconfigs({directory_ + "/missing"}).error().code(), ErrorCode::kNotFound);
}

TEST_F(KubeconfigFilesTest, APodFindsItsServiceAccount) {
  ASSERT_TRUE(WriteFileAtomically(directory_ + "/token", "secret"));
  ASSERT_TRUE(WriteFileAtomically(directory_ + "/namespace", "dormouse-system\n"));
  ::setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  ::setenv("KUBERNETES_SERVICE_PORT", "443", 1);
  const auto config = InClusterConfig(directory_);
  ::unsetenv("KUBERNETES_SERVICE_HOST");
  ::unsetenv("KUBERNETES_SERVICE_PORT");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->server, "https://[fd00::1]:443");
  EXPECT_EQ(config->ns, "dormouse-system");
  EXPECT_EQ(config->token_file, directory_ + "/token");
  EXPECT_EQ(InClusterConfig(directory_).error().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace dormouse::kube
