#include "node-agent/launch/root.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "node-agent/launch/step.h"

namespace dormouse::launch {
namespace {

// Makes the directories above `path`, which is absolute.
void MakeParents(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (::mkdir(parent.c_str(), 0755) != 0 && errno != EEXIST) Die("mkdir " + parent);
  }
}

void BindInto(const std::string& root, const Bind& bind) {
  // The last component is never followed: a VMM could have planted a link in a directory of its
  // own.
  const int source = static_cast<int>(Check(
      ::open(bind.host_path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC), "open " + bind.host_path));
  struct stat status {};
  Check(::fstat(source, &status), "stat " + bind.host_path);
  if (S_ISLNK(status.st_mode))
    DieWithoutErrno("bind " + bind.host_path + ": it is a symbolic link");
  const std::string target = root + bind.inner_path;
  MakeParents(target);
  if (S_ISDIR(status.st_mode)) {
    if (::mkdir(target.c_str(), 0755) != 0 && errno != EEXIST) Die("mkdir " + target);
  } else {
    const int file = static_cast<int>(
        Check(::open(target.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600),
              "create " + target));
    ::close(file);
  }
  const std::string from = "/proc/self/fd/" + std::to_string(source);
  Check(::mount(from.c_str(), target.c_str(), nullptr, MS_BIND, nullptr), "bind " + bind.host_path);
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV;
  if (!bind.writable) flags |= MS_RDONLY;
  if (!bind.executable) flags |= MS_NOEXEC;
  Check(::mount(nullptr, target.c_str(), nullptr, flags, nullptr), "restrict " + bind.host_path);
  ::close(source);
}

void MakeNode(const std::string& root, const Device& device, mode_t mode, uid_t owner,
              gid_t group) {
  const std::string path = root + device.inner_path;
  MakeParents(path);
  const mode_t type = device.block ? S_IFBLK : S_IFCHR;
  Check(::mknod(path.c_str(), type | mode, ::makedev(device.major, device.minor)),
        "mknod " + device.inner_path);
  Check(::chmod(path.c_str(), mode), "chmod " + device.inner_path);
  Check(::chown(path.c_str(), owner, group), "chown " + device.inner_path);
}

// /usr, and beside it what the distribution has: links into it, or directories.
void BindSystemLibraries(const std::string& root) {
  for (const std::string path : {"/usr", "/lib", "/lib64", "/bin"}) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) continue;
    if (!S_ISLNK(status.st_mode)) {
      BindInto(root, {path, path, false, true});
      continue;
    }
    char target[256];
    const ssize_t length =
        Check(::readlink(path.c_str(), target, sizeof(target) - 1), "readlink " + path);
    target[length] = '\0';
    Check(::symlink(target, (root + path).c_str()), "symlink " + path);
  }
  if (::access("/etc/ld.so.cache", R_OK) == 0)
    BindInto(root, {"/etc/ld.so.cache", "/etc/ld.so.cache", false, false});
}

void MakeDevices(const std::string& root, const Spec& spec) {
  for (const Device& device :
       {Device{"/dev/null", 1, 3}, Device{"/dev/zero", 1, 5}, Device{"/dev/urandom", 1, 9}}) {
    MakeNode(root, device, 0666, 0, 0);
  }
  for (const Device& device : spec.devices) MakeNode(root, device, 0600, spec.uid, spec.gid);
}

}  // namespace

void EnterPrivateRoot(const Spec& spec) {
  if (spec.host_mounts)
    Check(::setns(kHostMountsFd, CLONE_NEWNS), "enter the host's mount namespace");
  Check(::unshare(CLONE_NEWNS), "unshare mount namespace");
  // Nothing that is mounted here may travel to the host, nor keep the host from unmounting.
  Check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make mounts private");
  const std::string& root = spec.mount_point;
  Check(::mount("tmpfs", root.c_str(), "tmpfs", MS_NOSUID | MS_NOEXEC,
                "mode=0755,size=1m,nr_inodes=512"),
        "mount tmpfs on " + root);
  if (spec.system_libraries) BindSystemLibraries(root);
  for (const Bind& bind : spec.binds) BindInto(root, bind);
  MakeDevices(root, spec);
  Check(::chdir(root.c_str()), "chdir " + root);
  // pivot_root(2), "pivot_root(".", ".")": the old root lands on the new one, and is detached from
  // it.
  Check(::syscall(SYS_pivot_root, ".", "."), "pivot_root");
  Check(::umount2(".", MNT_DETACH), "let go of the host's root");
  Check(::chdir("/"), "chdir /");
  Check(::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC,
                nullptr),
        "make the root read-only");
}

}  // namespace dormouse::launch
