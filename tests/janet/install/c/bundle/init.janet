# A bundle with a module in C, which is built with the headers beside the folder for modules.

(def- headers (string (dyn *syspath*) "/../../include/janet"))

(defn build [manifest &]
  (os/mkdir "build")
  (os/execute ["cc" "-std=c99" "-fPIC" "-shared" "-I" headers
               "doubled.c" "-o" "build/doubled.so"] :px))

(defn install [manifest &]
  (bundle/add-file manifest "build/doubled.so" "doubled.so"))
