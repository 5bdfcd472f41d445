#!/usr/bin/env bash
# Unpacks the Mesa of bookworm-backports into build/hosts/mesa25, for Dawn, which refuses the lavapipe of Debian 12. The
# libraries that it needs come with the system's own mesa-vulkan-drivers. Anybody may do this; nothing outside build/ changes.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mesa=$PWD/build/hosts/mesa25

if [ -e "$mesa" ]; then
  echo "Mesa 25 is there"
  exit
fi
if ! grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release || [ "$(dpkg --print-architecture)" != amd64 ]; then
  echo "Mesa 25 is unpacked on Debian 12, on amd64, only" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs" "$work/root" "$(dirname "$mesa")"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Release: bookworm' | head -n 1)
printf 'deb %s %s main\n' "$mirror" bookworm "$mirror" bookworm-backports >"$work/sources.list"
apt=(apt-get -q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work/debs" && "${apt[@]}" download {mesa-vulkan-drivers,libdrm2,libdrm-amdgpu1}/bookworm-backports)
for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done
sed -i "s#\"library_path\": \"#&$mesa/usr/lib/x86_64-linux-gnu/#" "$work/root/usr/share/vulkan/icd.d/lvp_icd.json"
cp -r "$work/root" "$mesa.partial"
mv "$mesa.partial" "$mesa"
