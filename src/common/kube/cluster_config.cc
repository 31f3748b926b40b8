#include "src/common/kube/cluster_config.h"

#include <openssl/evp.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>

#include "src/common/base/files.h"

namespace dormouse::kube {
namespace {

constexpr std::size_t kMaxFileBytes = 4 * 1024 * 1024;

/// An entry of one of the three lists, and where its relative paths start.
struct Entry {
  YAML::Node node;
  std::string directory;
};

struct Merged {
  std::map<std::string, Entry> clusters, users, contexts;
  std::string current_context;
};

tl::unexpected<Error> Wrong(const std::string& what) {
  return Fail(ErrorCode::kInvalid, "kubeconfig: " + what);
}

std::string Text(const YAML::Node& node, const char* key) {
  if (!node.IsMap()) return "";
  const YAML::Node value = node[key];
  return value && value.IsScalar() ? value.Scalar() : "";
}

bool Flag(const YAML::Node& node, const char* key) {
  const std::string text = Text(node, key);
  return text == "true" || text == "True" || text == "TRUE";
}

std::string Absolute(const std::string& path, const std::string& directory) {
  if (path.empty() || path.front() == '/' || directory.empty()) return path;
  return directory + "/" + path;
}

Result<std::string> Base64(const std::string& text, const std::string& what) {
  std::string packed;
  std::copy_if(text.begin(), text.end(), std::back_inserter(packed),
               [](char c) { return c != '\n' && c != '\r' && c != ' '; });
  if (packed.size() % 4 != 0) return Wrong(what + " is not base64");
  std::string out(packed.size() / 4 * 3, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(packed.data()),
                                   static_cast<int>(packed.size()));
  if (size < 0) return Wrong(what + " is not base64");
  const auto padding = static_cast<std::size_t>(std::count(
      packed.end() - std::min<std::ptrdiff_t>(2, std::ssize(packed)), packed.end(), '='));
  out.resize(static_cast<std::size_t>(size) - padding);
  return out;
}

/// "<key>-data" wins over "<key>", as in client-go.
Result<PemSource> Pem(const Entry& entry, const std::string& key) {
  PemSource pem;
  const std::string data = Text(entry.node, (key + "-data").c_str());
  if (!data.empty()) {
    DORMOUSE_ASSIGN(pem.data, Base64(data, key + "-data"));
  } else {
    pem.file = Absolute(Text(entry.node, key.c_str()), entry.directory);
  }
  return pem;
}

Result<> MergeList(const YAML::Node& root, const char* list_key, const char* entry_key,
                   const std::string& directory, std::map<std::string, Entry>& into) {
  const YAML::Node list = root[list_key];
  if (!list || list.IsNull()) return {};
  if (!list.IsSequence()) return Wrong(std::string(list_key) + " is not a list");
  for (const YAML::Node& item : list) {
    if (!item.IsMap()) return Wrong(std::string("an entry of ") + list_key + " is not a map");
    const std::string name = Text(item, "name");
    const YAML::Node node = item[entry_key];
    if (name.empty()) return Wrong(std::string("an entry of ") + list_key + " has no name");
    into.try_emplace(
        name, Entry{node && node.IsMap() ? node : YAML::Node(YAML::NodeType::Map), directory});
  }
  return {};
}

Result<> Merge(std::string_view text, const std::string& directory, Merged& into) {
  if (text.size() > kMaxFileBytes) return Wrong("larger than 4 MiB");
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    if (root.IsNull()) return {};
    if (!root.IsMap()) return Wrong("not a map");
    DORMOUSE_TRY(MergeList(root, "clusters", "cluster", directory, into.clusters));
    DORMOUSE_TRY(MergeList(root, "users", "user", directory, into.users));
    DORMOUSE_TRY(MergeList(root, "contexts", "context", directory, into.contexts));
    if (into.current_context.empty()) into.current_context = Text(root, "current-context");
  } catch (const std::exception& exception) {
    return Wrong(exception.what());
  }
  return {};
}

Result<ExecConfig> Exec(const YAML::Node& node, const std::string& directory) {
  ExecConfig exec;
  exec.api_version = Text(node, "apiVersion");
  exec.command = Text(node, "command");
  if (exec.command.empty()) return Wrong("exec has no command");
  // With a slash it is a path, relative to the file; without one it is looked up in PATH.
  if (exec.command.find('/') != std::string::npos) exec.command = Absolute(exec.command, directory);
  if (exec.api_version != "client.authentication.k8s.io/v1" &&
      exec.api_version != "client.authentication.k8s.io/v1beta1") {
    return Wrong("exec apiVersion '" + exec.api_version +
                 "' is neither client.authentication.k8s.io/v1 "
                 "nor v1beta1");
  }
  if (Text(node, "interactiveMode") == "Always") {
    return Wrong("exec plugin " + exec.command + " wants a terminal (interactiveMode Always)");
  }
  if (const YAML::Node args = node["args"]; args && args.IsSequence()) {
    for (const YAML::Node& arg : args) exec.args.push_back(arg.as<std::string>(""));
  }
  if (const YAML::Node env = node["env"]; env && env.IsSequence()) {
    for (const YAML::Node& entry : env)
      exec.env.emplace_back(Text(entry, "name"), Text(entry, "value"));
  }
  exec.provide_cluster_info = Flag(node, "provideClusterInfo");
  exec.install_hint = Text(node, "installHint");
  return exec;
}

Result<> FillUser(const Entry& user, const std::string& name, ClusterConfig& config) {
  for (const char* key :
       {"username", "password", "auth-provider", "as", "as-uid", "as-groups", "as-user-extra"}) {
    const YAML::Node value = user.node[key];
    if (value && !value.IsNull()) {
      return Wrong("user '" + name + "': " + key +
                   " is not supported; use a token, a client "
                   "certificate, or an exec plugin");
    }
  }
  DORMOUSE_ASSIGN(config.client_certificate, Pem(user, "client-certificate"));
  DORMOUSE_ASSIGN(config.client_key, Pem(user, "client-key"));
  if (config.client_certificate.empty() != config.client_key.empty()) {
    return Wrong("user '" + name + "': client-certificate and client-key go together");
  }
  config.token = Text(user.node, "token");
  config.token_file = Absolute(Text(user.node, "tokenFile"), user.directory);
  if (const YAML::Node exec = user.node["exec"]; exec && exec.IsMap()) {
    DORMOUSE_ASSIGN(config.exec, Exec(exec, user.directory));
  }
  return {};
}

Result<> CheckServer(const std::string& server, const std::string& cluster) {
  const bool known = server.starts_with("https://") || server.starts_with("http://");
  if (known && server.find_first_of(" \t\r\n") == std::string::npos) return {};
  return Wrong("cluster '" + cluster + "': server '" + server +
               "' is not an http or https address");
}

Result<ClusterConfig> Select(const Merged& merged, const std::string& wanted) {
  const std::string context_name = wanted.empty() ? merged.current_context : wanted;
  if (context_name.empty()) return Wrong("no current-context is set, and none was asked for");
  const auto context = merged.contexts.find(context_name);
  if (context == merged.contexts.end())
    return Wrong("context '" + context_name + "' does not exist");
  const std::string cluster_name = Text(context->second.node, "cluster");
  const auto cluster = merged.clusters.find(cluster_name);
  if (cluster == merged.clusters.end()) {
    return Wrong("context '" + context_name + "': cluster '" + cluster_name + "' does not exist");
  }
  ClusterConfig config;
  if (const std::string ns = Text(context->second.node, "namespace"); !ns.empty()) config.ns = ns;
  config.server = Text(cluster->second.node, "server");
  DORMOUSE_TRY(CheckServer(config.server, cluster_name));
  if (!Text(cluster->second.node, "proxy-url").empty()) {
    return Wrong("cluster '" + cluster_name + "': proxy-url is not supported");
  }
  config.tls_server_name = Text(cluster->second.node, "tls-server-name");
  config.insecure_skip_tls_verify = Flag(cluster->second.node, "insecure-skip-tls-verify");
  DORMOUSE_ASSIGN(config.ca, Pem(cluster->second, "certificate-authority"));
  if (config.insecure_skip_tls_verify && !config.ca.empty()) {
    return Wrong("cluster '" + cluster_name +
                 "': insecure-skip-tls-verify and a certificate-authority exclude each other");
  }
  const std::string user_name = Text(context->second.node, "user");
  if (!user_name.empty()) {
    const auto user = merged.users.find(user_name);
    if (user == merged.users.end()) {
      return Wrong("context '" + context_name + "': user '" + user_name + "' does not exist");
    }
    DORMOUSE_TRY(FillUser(user->second, user_name, config));
  }
  return config;
}

Result<ClusterConfig> Finish(const Merged& merged, const std::string& context) {
  try {
    return Select(merged, context);
  } catch (const std::exception& exception) {
    return Wrong(exception.what());
  }
}

std::string DirectoryOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Result<ClusterConfig> ParseKubeconfig(std::string_view text, const std::string& directory,
                                      const std::string& context) {
  Merged merged;
  DORMOUSE_TRY(Merge(text, directory, merged));
  return Finish(merged, context);
}

Result<ClusterConfig> LoadKubeconfigs(const std::vector<std::string>& paths,
                                      const std::string& context) {
  Merged merged;
  bool any = false;
  for (const std::string& path : paths) {
    if (path.empty()) continue;
    auto text = ReadFile(path, kMaxFileBytes);
    if (!text && text.error().code() == ErrorCode::kNotFound) continue;
    if (!text) return Fail(std::move(text).error());
    any = true;
    if (auto merge = Merge(*text, DirectoryOf(path), merged); !merge) {
      return Fail(merge.error().Wrap(path));
    }
  }
  if (!any) {
    std::string all;
    for (const std::string& path : paths) all += (all.empty() ? "" : ":") + path;
    return Fail(ErrorCode::kNotFound, "kubeconfig: there is no file " + all);
  }
  return Finish(merged, context);
}

Result<ClusterConfig> InClusterConfig(const std::string& directory) {
  const std::string host = Environment("KUBERNETES_SERVICE_HOST");
  const std::string port = Environment("KUBERNETES_SERVICE_PORT");
  if (host.empty() || port.empty()) {
    return Fail(ErrorCode::kNotFound,
                "not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set");
  }
  ClusterConfig config;
  const bool ipv6 = host.find(':') != std::string::npos;
  config.server = "https://" + (ipv6 ? "[" + host + "]" : host) + ":" + port;
  config.token_file = directory + "/token";
  config.ca.file = directory + "/ca.crt";
  DORMOUSE_TRY(ReadFile(config.token_file, kMaxTokenBytes));
  if (auto ns = ReadFile(directory + "/namespace", 253); ns && !ns->empty()) {
    config.ns = ns->substr(0, ns->find('\n'));
  }
  return config;
}

Result<ClusterConfig> LoadClusterConfig(const std::string& kubeconfig_flag,
                                        const std::string& context) {
  if (!kubeconfig_flag.empty()) return LoadKubeconfigs({kubeconfig_flag}, context);
  if (const std::string list = Environment("KUBECONFIG"); !list.empty()) {
    std::vector<std::string> paths;
    std::size_t at = 0;
    while (at <= list.size()) {
      const std::size_t colon = std::min(list.find(':', at), list.size());
      paths.push_back(list.substr(at, colon - at));
      at = colon + 1;
    }
    return LoadKubeconfigs(paths, context);
  }
  auto in_cluster = InClusterConfig();
  if (in_cluster || in_cluster.error().code() != ErrorCode::kNotFound ||
      !Environment("KUBERNETES_SERVICE_HOST").empty()) {
    return in_cluster;
  }
  const std::string home = Environment("HOME");
  if (home.empty()) return in_cluster;
  return LoadKubeconfigs({home + "/.kube/config"}, context);
}

}  // namespace dormouse::kube
