# Makes the Triton of a virtual environment runnable: its backend for Python needs the stub and the library of this Python.
set -eu
folder=$1

triton=$(echo "$folder"/lib/python*/site-packages/pytriton/tritonserver)
version=$("$folder/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
library=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
cp "$triton/python_backend_stubs/$version/triton_python_backend_stub" "$triton/backends/python/"
cat > "$folder/bin/tritonserver" <<END
#!/bin/sh
export LD_LIBRARY_PATH="$library"
exec "$triton/bin/tritonserver" --backend-directory="$triton/backends" "\$@"
END
chmod +x "$folder/bin/tritonserver"
