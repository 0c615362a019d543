# A bundle with a module in C++, in a folder of its own.

(def- headers (string (dyn *syspath*) "/../../include"))

(defn build [manifest &]
  (os/mkdir "build")
  (os/execute ["c++" "-std=c++11" "-fPIC" "-shared" "-I" headers
               "native.cpp" "-o" "build/native.so"] :px))

(defn install [manifest &]
  (bundle/add-directory manifest "sorted")
  (bundle/add-file manifest "build/native.so" "sorted/native.so")
  (bundle/add-file manifest "init.janet" "sorted/init.janet"))

(defn check [manifest &]
  (def module (require "sorted"))
  (assert (= [1 2 3] ((get-in module ['numbers :value]) [3 1 2]))))
