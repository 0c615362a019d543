# Packs the function `main` of a script into a C file: (main _ script output), as tools that build programs do.

(defn- bytes-of
  "The function with all that it uses. What is in the core of every VM is referred to by name."
  [script]
  (def environment (dofile script))
  (marshal (get-in environment ['main :value]) (invert (env-lookup root-env))))

(defn main [_ script output]
  (def image (bytes-of script))
  (spit output (string "const unsigned char image[] = {" (string/join (map string image) ",") "};\n"
                       "const unsigned long image_size = sizeof(image);\n")))
