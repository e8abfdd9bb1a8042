//! t
use std::time::Instant;
use invaspread_metrics::*;
fn main(){
 let mut s=invaspread_random::Stream::new(0,invaspread_random::Purpose::Bootstrap,0,0);
 let mut g:Vec<f32>=(0..50_000*128).map(|_|s.normal() as f32).collect();
 let mut q:Vec<f32>=(0..10_000*128).map(|_|s.normal() as f32).collect();
 l2_normalize_rows(&mut g,128);l2_normalize_rows(&mut q,128);
 for _ in 0..3 {let t=Instant::now(); let r=top_k(Rows::new(&q,128),Rows::new(&g,128),200,false).unwrap();
 println!("{:?} {}",t.elapsed(),r.indices[0]);}
 let mut o=vec![0f32;128*1024];
 let t=Instant::now(); for _ in 0..1000{invaspread_tensor::gemm::nt(128,1024,128,&q[..128*128],&g[..1024*128],&mut o);} println!("gemm alone {:?} per 10000x50000 {:?}",t.elapsed(),t.elapsed()*3906/1000);
 if std::env::args().count()>1 {return;}
 let t=Instant::now();let c=KMeans{clusters:1000,iterations:20,tolerance:0.0,restarts:1,seeding:Seeding::Random,seed:0,epoch:0}.fit(Rows::new(&g,128)).unwrap();println!("kmeans 50000x128 k=1000 20 it {:?} {}",t.elapsed(),c.inertia);
 let t=Instant::now();let w=Whitening::fit(Rows::new(&g,128),128).unwrap().transform(Rows::new(&g,128));println!("whiten {:?} {}",t.elapsed(),w[0]);
 let g=&g[..12500*512];
 let t=Instant::now();let w=Whitening::fit(Rows::new(g,512),256).unwrap().transform(Rows::new(g,512));println!("whiten 12500x512 {:?} {}",t.elapsed(),w[0]);
}
