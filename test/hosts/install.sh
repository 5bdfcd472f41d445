#!/usr/bin/env bash
# Installs what the suites of hosts drive and npm does not have: the browsers and Vulkan on the CPU, on Debian and its like, as
# root; a newer Mesa, on Debian 12; Wasmtime, if Python is there with pip. What cannot be installed is skipped by the suites, or,
# with --require-all, fails there.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(chromium firefox-esr webkit2gtk-driver libwebkit2gtk-4.1-0 xvfb dbus libvulkan1 mesa-vulkan-drivers)
if ! command -v apt-get >/dev/null; then
  echo "there is no apt-get: install ${packages[*]} another way" >&2
elif dpkg -s "${packages[@]}" >/dev/null 2>&1; then
  echo "the browsers and Vulkan are there"
elif [ "$(id -u)" != 0 ]; then
  echo "only root may install ${packages[*]}" >&2
else
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
fi

if python3 -m pip --version >/dev/null 2>&1; then
  python3 -m pip install --quiet --retries 0 --upgrade --target build/hosts/python wasmtime || echo "Wasmtime cannot be had from pip" >&2
fi

test/hosts/gpu/install-mesa.sh || echo "a newer Mesa cannot be had" >&2
