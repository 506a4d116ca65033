package store

import "golang.org/x/sys/unix"

// mountPoint reports whether something is mounted at path: a file that Docker
// mounts alone cannot be renamed over (EBUSY).
func mountPoint(path string) bool {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return false // before Linux 5.8 nobody can tell
	}
	return st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
